/* SPDX-License-Identifier: Apache-2.0 */
typedef int common_transport_placeholder;
