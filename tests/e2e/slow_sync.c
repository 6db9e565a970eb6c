/* Loaded in front of a program (LD_PRELOAD), it stands for a slow disk: while the file
 * FARSHORE_SLOW_SYNC_FILE is there, each fsync and fdatasync of a file below FARSHORE_SLOW_SYNC_UNDER
 * takes as many milliseconds more as that file says; "stop" in it: until it is gone or changed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void wait_ms(long ms) {
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0) continue;
}

/* -1: stop. */
static long delay_ms(void) {
    const char* path = getenv("FARSHORE_SLOW_SYNC_FILE");
    FILE* file = path != NULL ? fopen(path, "re") : NULL;
    char words[32] = "";
    if (file == NULL) return 0;
    if (fgets(words, sizeof words, file) == NULL) words[0] = '\0';
    fclose(file);
    return strncmp(words, "stop", 4) == 0 ? -1 : atol(words);
}

static void slow(int fd) {
    const char* under = getenv("FARSHORE_SLOW_SYNC_UNDER");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (under == NULL || length < 0) return;
    path[length] = '\0';
    if (strncmp(path, under, strlen(under)) != 0) return;
    long ms = delay_ms();
    if (ms > 0) wait_ms(ms);
    while (ms < 0) {
        wait_ms(20);
        ms = delay_ms();
    }
}

int fsync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    slow(fd);
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    slow(fd);
    return real(fd);
}
