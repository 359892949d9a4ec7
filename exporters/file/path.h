/* path.h: text from the network as one element of a path.
 *
 * Letters, digits, '_', '-', '=' and a '.' that is not first stand for themselves; every other byte
 * is %XX. Empty becomes "%". Over FLUE_PATH_ELEMENT bytes it is cut and ends in "~" and eight
 * digits of its SHA-256, so that different texts stay different. No element can be "." or ".." or
 * hold a '/'.
 */
#ifndef EXPORTERS_FILE_PATH_H
#define EXPORTERS_FILE_PATH_H

#include "collector/base/bytes.h"

#define FLUE_PATH_ELEMENT 180

/* Terminated; returns its length. */
size_t flue_path_element(struct flue_bytes text, char out[FLUE_PATH_ELEMENT + 16]);

/* Makes the folder that `path` lies in, and those above it, where missing. `path` is changed and
 * put back. 0 or -1 with errno. */
int flue_path_make_parents(char *path, unsigned mode);

#endif
