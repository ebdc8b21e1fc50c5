/* muster-fleet: a simulated fleet of devices for demonstrations, tests and load. */
#include "bench/fleet/credentials.h"
#include "bench/fleet/options.h"
#include "bench/fleet/supervisor.h"

int main(int argc, char **argv)
{
    struct options options;
    struct credentials credentials;

    options_load(&options, argc, argv);
    if (credentials_load(&credentials, options.credentials, options.offset, options.devices) != ERR_OK)
        return 2;
    int status = supervisor_run(&options, &credentials);
    credentials_free(&credentials);
    options_clear(&options);
    return status;
}
