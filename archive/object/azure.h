/* azure.h: configuration of the Azure Blob store; `url` and `auth` as the Collector's azureblob
 * exporter has them.
 *
 * Without auth.type: AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY (or _SAS_TOKEN) with
 * AZURE_STORAGE_ACCOUNT, workload identity (AZURE_FEDERATED_TOKEN_FILE), AZURE_CLIENT_SECRET,
 * managed identity, whichever the environment has first. A SAS may also stand as the url's query.
 */
#ifndef FLUE_ARCHIVE_AZURE_H
#define FLUE_ARCHIVE_AZURE_H

#include "archive/object/object.h"

enum flue_azure_auth_type {
    FLUE_AZURE_AUTH_ENVIRONMENT,
    FLUE_AZURE_AUTH_CONNECTION_STRING,
    FLUE_AZURE_AUTH_SERVICE_PRINCIPAL,
    FLUE_AZURE_AUTH_SYSTEM_IDENTITY,
    FLUE_AZURE_AUTH_USER_IDENTITY,
    FLUE_AZURE_AUTH_WORKLOAD_IDENTITY,
    FLUE_AZURE_AUTH_ANONYMOUS
};
struct flue_azure_auth {
    int type; /* "environment", "connection_string", "service_principal",
               * "system_managed_identity", "user_managed_identity", "workload_identity",
               * "anonymous" */
    const char *connection_string, *tenant_id, *client_id, *client_secret, *federated_token_file;
};
struct flue_azure_config {
    const char *url;       /* "https://account.blob.core.windows.net/"; may come with the connection
                            * string or from AZURE_STORAGE_ACCOUNT instead */
    const char *container; /* required */
    const char *access_tier; /* x-ms-access-tier: Hot, Cool, Cold, Archive; NULL: the account's */
    struct flue_azure_auth auth;
    struct flue_tls_client_config tls;
};
/* url, container, access_tier, auth, tls */
extern const struct flue_field flue_azure_fields[];

#endif
