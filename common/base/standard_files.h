/* standard_files.h - make sure that there are three of them.
 *
 * A program that is started with one closed gives its number to the next file that it opens, and
 * then writes its text into a socket or its messages into a model.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_STANDARD_FILES_H
#define TR_BASE_STANDARD_FILES_H

/* The first act of a program.  A closed one becomes /dev/null the wrong way round, so that reading
 * from it, or writing to it, fails. */
void tr_standard_files_open(void);

#endif
