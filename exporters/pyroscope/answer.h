/* answer.h: what a server's answer to a push means. Connect's codes; pyroscope.md §0.2, §1.5. */
#ifndef EXPORTERS_PYROSCOPE_ANSWER_H
#define EXPORTERS_PYROSCOPE_ANSWER_H

#include "collector/net/client.h"

/* Of an answer other than 200: the code says whether the same data may come again. "unknown" and
 * "internal" may: a server says that when its own store fails, and our data was checked. */
void flue_push_answer(const struct flue_call *call, struct flue_error *error);

#endif
