/* path.c: see path.h. */
#include "exporters/file/path.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

int flue_path_make_parents(char *path, unsigned mode)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        int result = mkdir(path, mode);
        *slash = '/';
        if (result != 0 && errno != EEXIST)
            return -1;
    }
    return 0;
}
