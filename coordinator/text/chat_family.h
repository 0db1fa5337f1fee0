/* chat_family.h - how each family of chat models wants a conversation written.
 *
 * A published template is a program in a language of its own; here is what such programs do, as
 * tables.  Which family a file belongs to is seen from strings that are characteristic of its
 * template, or, for a file without one, from the special tokens of its vocabulary.
 *
 * USE     const tr_chat_family *f = tr_chat_family_by_template(text);     NULL: none that is known
 *         f = tr_chat_family_by_name("chatml");
 *         for (size_t i = 0; (f = tr_chat_family_at(i)); i++) ...
 * MEMORY  Families are constants.
 *
 * What a family leaves out of its published template: tools and their calls, dates, and system
 * messages that depend on them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_CHAT_FAMILY_H
#define TR_COORDINATOR_TEXT_CHAT_FAMILY_H

#include "base/bytes.h"

/* In a family's text: the tokens that begin and end a text, whatever a file calls them. */
#define TR_CHAT_BOS "\1"
#define TR_CHAT_EOS "\2"

enum { TR_CHAT_MAX_MARKS = 8, TR_CHAT_MAX_ENDS = 4, TR_CHAT_MAX_STOPS = 2 };

typedef enum {
    TR_CHAT_SYSTEM_TURN,     /* a system message is a turn and may stand anywhere */
    TR_CHAT_SYSTEM_FRONT,    /* one in front; several are joined by an empty line */
    TR_CHAT_SYSTEM_IN_FIRST, /* the same, inside the first message of the user */
    TR_CHAT_SYSTEM_IN_LAST,  /* inside the last one */
} tr_chat_system;

enum {
    TR_CHAT_BEGINS_WITH_BOS = 1, /* also when the file does not say so */
    TR_CHAT_ALTERNATES = 2,      /* user, assistant, user, ... and nothing else */
    TR_CHAT_TRIM_SYSTEM = 4,     /* no white space around what a message says */
    TR_CHAT_TRIM_USER = 8,
    TR_CHAT_TRIM_ASSISTANT = 16,
    TR_CHAT_TRIM = 4 | 8 | 16,
    TR_CHAT_BY_TOKENS = 32,  /* no other family has all of its marks */
    TR_CHAT_THINKS = 64,     /* earlier answers are repeated without their thoughts */
    TR_CHAT_DROP_LINES = 128 /* nor the line ends behind them */
};

/* What stands around a message. */
typedef struct {
    const char *before, *after;
} tr_chat_frame;

typedef struct {
    const char *name;
    const char *marks[TR_CHAT_MAX_MARKS]; /* special tokens that the vocabulary must have */
    const char *start;                    /* in front of everything, or NULL */
    const char *default_system;           /* for conversations without one, or NULL */
    tr_chat_frame system, user, assistant, tool;
    tr_chat_frame tools;        /* around messages of tools in a row; before: NULL if refused */
    const char *last_assistant; /* after the assistant's message if it is the last; or NULL */
    const char *generate;       /* begins the answer */
    const char *ends[TR_CHAT_MAX_ENDS];   /* tokens that end an answer */
    const char *stops[TR_CHAT_MAX_STOPS]; /* strings that end an answer */
    tr_chat_system system_place;
    unsigned flags;
} tr_chat_family;

/* The i-th family, or NULL after the last. */
const tr_chat_family *tr_chat_family_at(size_t i);

const tr_chat_family *tr_chat_family_by_name(const char *name);
const tr_chat_family *tr_chat_family_by_template(tr_bytes text);

/* The place of needle in text at or after from, and where it ends.  A line end in needle stands
 * also for its escape, a backslash and an n, which is how many templates write one. */
bool tr_chat_template_find(tr_bytes text, const char *needle, size_t from, size_t *begin,
                           size_t *end);

#endif
