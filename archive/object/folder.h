/* folder.h: configuration of a folder as an object store: keys are paths below it.
 *
 * A put writes a temporary name (".flue-" before it, never listed), syncs, renames (or links, for
 * create-only), and syncs the folder. Work is done on the pool.
 */
#ifndef FLUE_ARCHIVE_FOLDER_H
#define FLUE_ARCHIVE_FOLDER_H

#include "archive/object/object.h"

struct flue_folder_config {
    const char *path;      /* required */
    bool create_directory; /* make it when it is not there */
    bool fsync;
    const char *directory_permissions; /* octal text, "0750" */
};
/* path, create_directory, fsync, directory_permissions */
extern const struct flue_field flue_folder_fields[];

#endif
