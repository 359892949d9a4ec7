/* gcs.h: configuration of the Google Cloud Storage store.
 *
 * Credentials: credentials_file, else GOOGLE_APPLICATION_CREDENTIALS, else gcloud's own file, else
 * the metadata server. The file is a service account's key, an authorized_user, or an
 * external_account (workload identity federation with a token file).
 */
#ifndef FLUE_ARCHIVE_GCS_H
#define FLUE_ARCHIVE_GCS_H

#include "archive/object/object.h"

struct flue_gcs_config {
    const char *name;     /* of the bucket; required */
    const char *endpoint; /* NULL: STORAGE_EMULATOR_HOST, else https://storage.googleapis.com */
    const char *credentials_file;
    bool anonymous; /* no credentials at all: emulators */
    struct flue_tls_client_config tls;
};
/* name, endpoint, credentials_file, anonymous, tls */
extern const struct flue_field flue_gcs_fields[];

#endif
