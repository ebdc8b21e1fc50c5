/* Web hooks are not simulated: nothing is ever sent. */
#include <stdlib.h>

#include "lib/base/http_client.h"

struct http_client *http_client_new(struct ev_loop *loop, const struct http_options *options)
{
    (void)loop, (void)options;
    abort();
}

void http_client_free(struct http_client **client)
{
    *client = NULL;
}

bool http_client_post(struct http_client *client, const struct http_post *post)
{
    (void)client, (void)post;
    abort();
}

bool http_url_ok(const char *url)
{
    (void)url;
    return false;
}
