/* path.h: folders of a path. */
#ifndef EXPORTERS_FILE_PATH_H
#define EXPORTERS_FILE_PATH_H

/* Makes the folder that `path` lies in, and those above it, where missing. `path` is changed and
 * put back. 0 or -1 with errno. */
int flue_path_make_parents(char *path, unsigned mode);

#endif
