#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/dev.h"

bool dev_path(char out[DEV_PATH_BYTES], const char *folder, const char *name)
{
    int n = snprintf(out, DEV_PATH_BYTES, "%s/%s", folder, name);

    if (n > 0 && n < DEV_PATH_BYTES)
        return true;
    fprintf(stderr, "muster dev: %s: the path is too long\n", folder);
    return false;
}

static bool fail(const char *path)
{
    fprintf(stderr, "muster dev: %s: %s\n", path, strerror(errno));
    return false;
}

static bool make_folder(const char *path, mode_t mode)
{
    return mkdir(path, mode) == 0 || errno == EEXIST ? true : fail(path);
}

bool dev_own_folder(struct dev *dev, const char *path)
{
    if (!make_folder(path, 0700))
        return false;
    return !dev->group.drop || chown(path, dev->group.uid, dev->group.gid) == 0 ? true : fail(path);
}

/* The programs lie beside this one. */
static bool find_programs(struct dev *dev)
{
    ssize_t n = readlink("/proc/self/exe", dev->programs, sizeof dev->programs - 1);

    if (n <= 0)
        return fail("/proc/self/exe");
    dev->programs[n] = '\0';
    char *slash = strrchr(dev->programs, '/');
    if (slash)
        *slash = '\0';
    return true;
}

static bool make_data(struct dev *dev)
{
    char log[DEV_PATH_BYTES], real[PATH_MAX];

    if (!dev->options.data) {
        memcpy(dev->data, dev->run, sizeof dev->data);
    } else {
        if (!make_folder(dev->options.data, 0711) || !realpath(dev->options.data, real))
            return fail(dev->options.data);
        if (strlen(real) > DEV_PATH_BYTES - 32) {
            fprintf(stderr, "muster dev: %s: the path is too long\n", real);
            return false;
        }
        strcpy(dev->data, real);
    }
    return dev_path(log, dev->data, "log") && make_folder(log, 0755);
}

bool dev_folders_make(struct dev *dev)
{
    const char *tmp = getenv("TMPDIR");

    /* Sockets need a short path; a long TMPDIR does not do. */
    if (!tmp || tmp[0] != '/' || strlen(tmp) > 40)
        tmp = "/tmp";
    snprintf(dev->run, sizeof dev->run, "%s/muster-dev-XXXXXX", tmp);
    if (!mkdtemp(dev->run)) {
        fail(dev->run);
        dev->run[0] = '\0';
        return false;
    }
    /* The stores' user has to get through. */
    if (chmod(dev->run, 0711) != 0)
        return fail(dev->run);
    return find_programs(dev) && make_data(dev);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

void dev_folders_remove(struct dev *dev)
{
    if (dev->run[0] && nftw(dev->run, remove_one, 32, FTW_DEPTH | FTW_PHYS) != 0)
        fail(dev->run);
}
