/* What the C tests have in common: a line for every sentence that was checked, and how many there were. */
#ifndef HEARTBUS_TESTS_CHECK_H
#define HEARTBUS_TESTS_CHECK_H

#include "heartbus.h"

#include <dirent.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LONGEST_WAIT_MS 20000
#define TEXT(literal) (literal), sizeof(literal) - 1
#define EVERYTHING                                                                                                     \
    (HEARTBUS_ON_CONNECT | HEARTBUS_ON_REGISTER | HEARTBUS_ON_HEARTBEAT | HEARTBUS_ON_DATA | HEARTBUS_ON_LEFT |        \
     HEARTBUS_ON_CLOSE)

static int passed, failed;

static inline void check(bool ok, const char *sentence, ...) {
    va_list arguments;
    va_start(arguments, sentence);
    printf(ok ? "ok      " : "FAILED  ");
    vprintf(sentence, arguments);
    va_end(arguments);
    if (!ok)
        printf("  [last error: %s]", heartbus_last_error());
    printf("\n");
    fflush(stdout);
    ok ? passed++ : failed++;
}

static inline bool last_error_is(const char *text) { return strcmp(heartbus_last_error(), text) == 0; }
static inline bool last_error_has(const char *text) { return strstr(heartbus_last_error(), text) != NULL; }

static inline void check_refused(heartbus_status got, heartbus_status wanted, const char *text, const char *sentence) {
    bool ok = got == wanted && last_error_has(text);
    check(ok, "%s: %s, \"%s\"", sentence, heartbus_status_name(got), heartbus_last_error());
}

static inline long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Entries of /proc/self/fd or /proc/self/task. */
static inline int entries(const char *folder) {
    int count = 0;
    DIR *directory = opendir(folder);
    while (directory && readdir(directory))
        count++;
    if (directory)
        closedir(directory);
    return count;
}

/* Whether there come to be no more than so many: what another thread takes apart is there for a moment. */
static inline bool shrinks_to(const char *folder, int wanted) {
    for (long long until = now_ms() + LONGEST_WAIT_MS; entries(folder) > wanted && now_ms() < until;)
        poll(NULL, 0, 1);
    return entries(folder) <= wanted;
}

static inline int summary(void) {
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}

#endif
