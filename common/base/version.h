/* version.h - which Troupe this is.  Coordinator and workers must be of one version.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_VERSION_H
#define TR_BASE_VERSION_H

#define TR_VERSION "0.1.0"

#endif
