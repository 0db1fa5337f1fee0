/* SPDX-License-Identifier: Apache-2.0 */
typedef int common_experts_placeholder;
