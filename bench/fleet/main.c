/* muster-fleet: a simulated fleet of devices for demonstrations, tests and load. */
#include "bench/fleet/credentials.h"
#include "bench/fleet/options.h"
#include "bench/fleet/supervisor.h"

int main(int argc, char **argv)
{
    struct options options;
    struct credentials credentials;

    options_load(&options, argc, argv);
    enum err e = credentials_load(&credentials, options.credentials, options.offset, options.devices);
    int status = e == ERR_OK ? supervisor_run(&options, &credentials) : 2;
    credentials_free(&credentials);
    options_clear(&options);
    return status;
}
