<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/**
 * A wall clock that a test sets, for the processes that it starts: a library between them and the system, which adds a number of
 * seconds to whatever they read. The monotonic clock is the system's.
 */
final class WallClock
{
    private const SOURCE = <<<'C'
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <fcntl.h>
        #include <stdlib.h>
        #include <sys/mman.h>
        #include <sys/syscall.h>
        #include <sys/time.h>
        #include <time.h>
        #include <unistd.h>

        static volatile const long *step;

        __attribute__((constructor)) static void begin(void)
        {
            int fd = open(getenv("HEARTBUS_TEST_CLOCK"), O_RDONLY | O_CLOEXEC);
            step = mmap(NULL, sizeof(*step), PROT_READ, MAP_SHARED, fd, 0);
            close(fd);
        }

        int clock_gettime(clockid_t clock, struct timespec *now)
        {
            int done = (int) syscall(SYS_clock_gettime, clock, now);
            if (done == 0 && step && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
                now->tv_sec += *step;
            }
            return done;
        }

        /* PHP has extensions look for symbols in their own libraries first, and the clock's is not among these. */
        void *dlopen(const char *file, int flags)
        {
            void *(*real)(const char *, int) = (void *(*)(const char *, int)) dlsym(RTLD_NEXT, "dlopen");
            return real(file, flags & ~RTLD_DEEPBIND);
        }

        int gettimeofday(struct timeval *now, void *zone)
        {
            struct timespec read;
            (void) zone;
            clock_gettime(CLOCK_REALTIME, &read);
            now->tv_sec = read.tv_sec;
            now->tv_usec = read.tv_nsec / 1000;
            return 0;
        }

        time_t time(time_t *now)
        {
            struct timespec read;
            clock_gettime(CLOCK_REALTIME, &read);
            if (now) {
                *now = read.tv_sec;
            }
            return read.tv_sec;
        }
        C;

    private function __construct(private readonly string $library, private readonly string $steps)
    {
    }

    public static function make(): self
    {
        $folder = PhpProcess::folder();
        file_put_contents("$folder/clock.c", self::SOURCE);
        exec("cc -shared -fPIC -O1 -o $folder/clock.so $folder/clock.c 2>&1", $said, $code);
        Assert::assertSame(0, $code, implode("\n", $said));
        $clock = new self("$folder/clock.so", "$folder/clock.step");
        $clock->set(0);
        return $clock;
    }

    /** So many seconds ahead of the system's, from now on. */
    public function set(int $seconds): void
    {
        // In place: the processes have mapped it.
        $file = fopen($this->steps, 'c');
        fwrite($file, pack('q', $seconds));
        fclose($file);
    }

    /** @return array<string, string> what a process has in its environment to read this clock */
    public function environment(): array
    {
        return ['LD_PRELOAD' => $this->library, 'HEARTBUS_TEST_CLOCK' => $this->steps];
    }
}
