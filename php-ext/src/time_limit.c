/*
 * PHP's max_execution_time is a timer of the process: it counts the CPU time of all threads, and the engine's would use up what
 * is meant for PHP code. While an engine or clients run here, the limit is moved to a timer that counts PHP's own thread. The
 * setting stays what it is, and so do the handler of the signal and what it does. A limit that set_time_limit() sets counts the
 * process until it is moved as well, which is in the next turn of the loop.
 */
#include "php.h"
#include "zend_signal.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Such builds of PHP count real time, and no thread of ours is in it. */
#if defined(__linux__) && !defined(ZEND_MAX_EXECUTION_TIMERS)

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

extern unsigned heartbus_generation(void);

static timer_t timer;
/* A child has none of its parent's timers. */
static bool has_timer;
static unsigned timer_generation;
static struct sigaction of_php;

static bool is_armed(void)
{
	struct itimerval left;
	return getitimer(ITIMER_PROF, &left) == 0 && (left.it_value.tv_sec || left.it_value.tv_usec);
}

static void on_time(int number, siginfo_t *info, void *context)
{
	/* set_time_limit() was called since: PHP's timer counts again, or nothing does. */
	if (info->si_code == SI_TIMER && (EG(timeout_seconds) <= 0 || is_armed())) {
		return;
	}
	if (of_php.sa_flags & SA_SIGINFO) {
		of_php.sa_sigaction(number, info, context);
	} else {
		of_php.sa_handler(number);
	}
}

static bool make_timer(void)
{
	struct sigevent event;
	if (has_timer && timer_generation == heartbus_generation()) {
		return true;
	}
	memset(&event, 0, sizeof(event));
	event.sigev_notify = SIGEV_THREAD_ID;
	event.sigev_signo = SIGPROF;
	event.sigev_notify_thread_id = (pid_t) syscall(SYS_gettid);
	has_timer = timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) == 0;
	timer_generation = heartbus_generation();
	return has_timer;
}

/* To be called now and then on PHP's thread. Without a limit it costs nothing. */
void heartbus_own_time_limit(void)
{
	struct itimerval none, left;
	struct itimerspec own;
	struct sigaction action;
	if (EG(timeout_seconds) <= 0 || !is_armed() || !make_timer()) {
		return;
	}
	zend_sigaction(SIGPROF, NULL, &action);
	if (!(action.sa_flags & SA_SIGINFO) || action.sa_sigaction != on_time) {
		if (!(action.sa_flags & SA_SIGINFO) && (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)) {
			return; /* not PHP's limit */
		}
		of_php = action;
		action.sa_flags |= SA_SIGINFO;
		action.sa_sigaction = on_time;
		zend_sigaction(SIGPROF, &action, NULL);
	}
	memset(&none, 0, sizeof(none));
	memset(&own, 0, sizeof(own));
	setitimer(ITIMER_PROF, &none, &left);
	own.it_value.tv_sec = left.it_value.tv_sec;
	own.it_value.tv_nsec = left.it_value.tv_usec * 1000;
	if (own.it_value.tv_sec == 0 && own.it_value.tv_nsec == 0) {
		return; /* it has just run out, and its signal is here */
	}
	timer_settime(timer, 0, &own, NULL);
}

/* The request ends: from here on its limit is none of ours. */
void heartbus_end_own_time_limit(void)
{
	if (has_timer && timer_generation == heartbus_generation()) {
		timer_delete(timer);
	}
	has_timer = false;
}

#else

void heartbus_own_time_limit(void) {}
void heartbus_end_own_time_limit(void) {}

#endif
