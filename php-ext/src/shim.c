/*
 * The few things that PHP offers only as C macros or inline functions: typed properties, cached callables, streams,
 * zend signals, the VM interrupt. No logic of the extension is here; the Rust side of each function is in shim.rs.
 */
#include "php.h"
#include "php_ini.h"
#include "SAPI.h"
#include "ext/date/php_date.h"
#include "ext/json/php_json.h"
#include "ext/spl/spl_exceptions.h"
#include "zend_closures.h"
#include "zend_exceptions.h"
#include "zend_interfaces.h"
#include "zend_signal.h"
#include "zend_smart_str.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#ifdef ZTS
#error "Heartbus does not support thread-safe (ZTS) builds of PHP: use a PHP without thread safety (NTS)"
#endif

/* ---- classes ---- */

zend_class_entry *heartbus_spl_runtime_exception(void) { return spl_ce_RuntimeException; }
zend_class_entry *heartbus_spl_logic_exception(void) { return spl_ce_LogicException; }
zend_class_entry *heartbus_spl_invalid_argument_exception(void) { return spl_ce_InvalidArgumentException; }

/* `type` is an IS_* code; without a default (undef) the property starts uninitialized, as in PHP code. */
/* `type` is PHP's number for it, or 0 for objects of `class_name`, and null. */
void heartbus_declare_property(zend_class_entry *ce, const char *name, size_t len, int type, const char *class_name, size_t class_len,
	bool readonly, zval *initial)
{
	zend_string *key = zend_string_init_interned(name, len, 1);
	int flags = ZEND_ACC_PUBLIC | (readonly ? ZEND_ACC_READONLY : 0);
	if (Z_TYPE_P(initial) == IS_STRING) {
		/* Defaults of internal classes outlive every request. */
		zend_string *text = Z_STR_P(initial);
		ZVAL_INTERNED_STR(initial, zend_string_init_interned(ZSTR_VAL(text), ZSTR_LEN(text), 1));
		zend_string_release(text);
	}
	zend_type declared = type
		? (zend_type) ZEND_TYPE_INIT_CODE(type, 0, 0)
		: (zend_type) ZEND_TYPE_INIT_CLASS(zend_string_init_interned(class_name, class_len, 1), 1, 0);
	zend_declare_typed_property(ce, key, initial, flags, NULL, declared);
	zend_string_release(key);
}

/* ---- php.ini ---- */

PHP_INI_BEGIN()
	PHP_INI_ENTRY("heartbus.log", "stderr", PHP_INI_ALL, NULL)
	PHP_INI_ENTRY("heartbus.log_file", "", PHP_INI_ALL, NULL)
	PHP_INI_ENTRY("heartbus.log_level", NULL, PHP_INI_ALL, NULL)
	PHP_INI_ENTRY("heartbus.socket", "", PHP_INI_ALL, NULL)
	PHP_INI_ENTRY("heartbus.loop", "auto", PHP_INI_ALL, NULL)
PHP_INI_END()

void heartbus_register_ini(int type, int module_number)
{
	(void) type; /* PHP 8.1 wants the number alone */
	REGISTER_INI_ENTRIES();
}

void heartbus_unregister_ini(int type, int module_number)
{
	(void) type;
	UNREGISTER_INI_ENTRIES();
}

void heartbus_display_ini(zend_module_entry *zend_module) { DISPLAY_INI_ENTRIES(); }

/* NULL when there is no such setting. */
const char *heartbus_ini(const char *name, size_t len) { return zend_ini_string_ex(name, len, 0, NULL); }

/* ---- garbage collection of values that Rust holds ---- */

void heartbus_gc_add(zend_get_gc_buffer *buffer, zval *value) { zend_get_gc_buffer_add_zval(buffer, value); }
void heartbus_gc_use(zend_get_gc_buffer *buffer, zval **table, int *n) { zend_get_gc_buffer_use(buffer, table, n); }

/* ---- the SAPI ---- */

bool heartbus_is_cli(void)
{
	return strcmp(sapi_module.name, "cli") == 0 || strcmp(sapi_module.name, "phpdbg") == 0 || strcmp(sapi_module.name, "micro") == 0;
}

const char *heartbus_sapi(void) { return sapi_module.name; }

/* ---- callables ---- */

typedef struct {
	zval value;
	zend_fcall_info_cache cache; /* function_handler is NULL when PHP must look the function up at each call */
} heartbus_callable;

/* Throws a TypeError for argument `number` and returns false when `value` cannot be called. */
bool heartbus_callable_init(heartbus_callable *callable, zval *value, uint32_t number)
{
	char *error = NULL;
	memset(&callable->cache, 0, sizeof(callable->cache));
	if (!zend_is_callable_ex(value, NULL, 0, NULL, &callable->cache, &error)) {
		zend_argument_type_error(number, "must be a valid callback, %s", error ? error : "no array or string given");
		if (error) {
			efree(error);
		}
		return false;
	}
	if (error) {
		efree(error);
	}
	if (callable->cache.function_handler->common.fn_flags & ZEND_ACC_CALL_VIA_TRAMPOLINE) {
		/* __call and __callStatic: the trampoline lives for one call only. */
		zend_release_fcall_info_cache(&callable->cache);
		memset(&callable->cache, 0, sizeof(callable->cache));
	}
	ZVAL_COPY_DEREF(&callable->value, value);
	return true;
}

/* True when no exception is pending afterwards. */
bool heartbus_callable_call(heartbus_callable *callable, zval *result, uint32_t count, zval *arguments)
{
	zend_fcall_info info;
	zend_fcall_info_cache cache = callable->cache;
	info.size = sizeof(info);
	ZVAL_COPY_VALUE(&info.function_name, &callable->value);
	info.retval = result;
	info.params = arguments;
	info.object = NULL;
	info.param_count = count;
	info.named_params = NULL;
	ZVAL_UNDEF(result);
	zend_call_function(&info, cache.function_handler ? &cache : NULL);
	return EG(exception) == NULL;
}

/* A closure over a method that PHP code cannot name, because it is private. `object` is NULL for a static one. */
void heartbus_method_closure(zval *result, zend_class_entry *ce, zend_object *object, const char *name, size_t len)
{
	zend_function *method = zend_hash_str_find_ptr(&ce->function_table, name, len);
	zval self;
	if (object) {
		ZVAL_OBJ(&self, object);
	}
	zend_create_fake_closure(result, method, ce, object ? object->ce : ce, object ? &self : NULL);
}

/* ---- values ---- */

void heartbus_share_string(zend_string *string, zval *value) { ZVAL_STR_COPY(value, string); }

/* Takes the values over. */
void heartbus_list(zval *array, const zval *values, uint32_t count)
{
	array_init_size(array, count);
	zend_hash_real_init_packed(Z_ARRVAL_P(array));
	ZEND_HASH_FILL_PACKED(Z_ARRVAL_P(array)) {
		for (uint32_t i = 0; i < count; i++) {
			ZEND_HASH_FILL_ADD(&values[i]);
		}
	} ZEND_HASH_FILL_END();
}

/* $array[$key] = $value, and $array[$key] or NULL, with PHP's rules for keys like "12". */
void heartbus_array_set(zval *array, zend_string *key, zval *value)
{
	ZVAL_DEREF(array);
	ZVAL_DEREF(value);
	Z_TRY_ADDREF_P(value);
	SEPARATE_ARRAY(array);
	zend_symtable_update(Z_ARRVAL_P(array), key, value);
}

zval *heartbus_array_get(const zval *array, zend_string *key) { return zend_symtable_find(Z_ARRVAL_P(array), key); }

/* As is_numeric(). */
bool heartbus_numeric(const zval *value, double *number)
{
	zend_long integer;
	switch (Z_TYPE_P(value)) {
		case IS_LONG:
			*number = (double) Z_LVAL_P(value);
			return true;
		case IS_DOUBLE:
			*number = Z_DVAL_P(value);
			return true;
		case IS_STRING:
			switch (is_numeric_string(Z_STRVAL_P(value), Z_STRLEN_P(value), &integer, number, 0)) {
				case IS_LONG:
					*number = (double) integer;
					return true;
				case IS_DOUBLE:
					return true;
			}
			return false;
	}
	return false;
}

/* As passing the value to a function of the user's with an int, float or string parameter, in weak mode. */
bool heartbus_weak_long(zval *value, zend_long *number)
{
	if (Z_TYPE_P(value) == IS_LONG) {
		*number = Z_LVAL_P(value);
		return true;
	}
	return Z_TYPE_P(value) != IS_NULL && zend_parse_arg_long_weak(value, number, (uint32_t) -1);
}

bool heartbus_weak_double(zval *value, double *number)
{
	if (Z_TYPE_P(value) == IS_DOUBLE) {
		*number = Z_DVAL_P(value);
		return true;
	}
	return Z_TYPE_P(value) != IS_NULL && zend_parse_arg_double_weak(value, number, (uint32_t) -1);
}

bool heartbus_weak_string(zval *value)
{
	zend_string *string; /* of the value, which becomes a string */
	return Z_TYPE_P(value) == IS_STRING || (Z_TYPE_P(value) != IS_NULL && zend_parse_arg_str_weak(value, &string, (uint32_t) -1));
}

/* gettype(), or what PHP's messages about types call a value. */
const char *heartbus_type_name(const zval *value, bool legacy)
{
	return legacy ? ZSTR_VAL(zend_zval_get_legacy_type(value)) : zend_zval_type_name(value);
}

/* json_encode() with its default flags. INF and NAN are told by the error code only. False, and nothing in `result`, when the value cannot be encoded. */
bool heartbus_json_encode(zval *value, zval *result)
{
	smart_str text = {0};
	if (php_json_encode(&text, value, 0) != SUCCESS || JSON_G(error_code) != PHP_JSON_ERROR_NONE || EG(exception)) {
		smart_str_free(&text);
		return false;
	}
	ZVAL_STR(result, smart_str_extract(&text));
	return true;
}

/* json_decode(..., true): null when the text is not JSON. */
void heartbus_json_decode(const char *text, size_t len, zval *result)
{
	ZVAL_NULL(result);
	php_json_decode_ex(result, text, len, PHP_JSON_OBJECT_AS_ARRAY, PHP_JSON_PARSER_DEFAULT_DEPTH);
}

/* A stream that owns `fd`. */
bool heartbus_stream(int fd, zval *result)
{
	php_stream *stream = php_stream_fopen_from_fd(fd, "r", NULL);
	if (!stream) {
		return false;
	}
	php_stream_to_zval(stream, result);
	return true;
}

bool heartbus_stream_is_open(zval *value)
{
	return Z_TYPE_P(value) == IS_RESOURCE && Z_RES_P(value)->type == php_file_le_stream();
}

/* Runs PHP source, from its opening tag on, and gives what it returns. */
bool heartbus_run_source(const char *source, size_t len, const char *name, zval *result)
{
	/* Behind "<?php", which every source here begins with: the same in all versions, and the line numbers stay right. */
	zend_string *code = zend_string_init(source + 5, len - 5, 0);
#if PHP_VERSION_ID >= 80200
	zend_op_array *ops = zend_compile_string(code, name, ZEND_COMPILE_POSITION_AFTER_OPEN_TAG);
#else
	zend_op_array *ops = zend_compile_string(code, name);
#endif
	zend_string_release(code);
	if (!ops) {
		return false;
	}
	ops->scope = NULL;
	ZVAL_UNDEF(result);
	zend_execute(ops, result);
	zend_destroy_static_vars(ops);
	destroy_op_array(ops);
	efree_size(ops, sizeof(zend_op_array));
	return EG(exception) == NULL;
}

/* ---- what the log asks ---- */

static bool is_stream_of(zval *value, int number)
{
	php_stream *stream;
	int fd = -1;
	ZVAL_DEREF(value);
	if (Z_TYPE_P(value) != IS_RESOURCE) {
		return false;
	}
	/* Without a name it says nothing about a stream that is closed. */
	stream = zend_fetch_resource2_ex(value, NULL, php_file_le_stream(), php_file_le_pstream());
	return stream && php_stream_cast(stream, PHP_STREAM_AS_FD_FOR_SELECT | PHP_STREAM_CAST_INTERNAL, (void **) &fd, 0) == SUCCESS && fd == number;
}

/* Whether the script has number 2 as its stderr: in the constant STDERR, or in $STDERR, in which scripts open another one.
   2: yes, the script has put it there, 1: yes, as PHP made it, 0: no, -1: it was given no such constant, and nothing of the kind is known. */
int heartbus_has_stderr(void)
{
	zval *constant = zend_get_constant_str(ZEND_STRL("STDERR"));
	zval *variable = zend_hash_str_find_ind(&EG(symbol_table), ZEND_STRL("STDERR"));
	if (variable && is_stream_of(variable, 2)) {
		return 2;
	}
	if (constant) {
		return is_stream_of(constant, 2);
	}
	return -1;
}

/* A public static property of a class that is loaded: undefined where there is none of them. */
void heartbus_static_property(const char *class_name, size_t class_len, const char *name, size_t len, zval *result)
{
	zend_string *wanted = zend_string_init(class_name, class_len, 0);
	zend_class_entry *ce = zend_lookup_class_ex(wanted, NULL, ZEND_FETCH_CLASS_NO_AUTOLOAD);
	zval *value = ce ? zend_read_static_property(ce, name, len, true) : NULL;
	zend_string_release(wanted);
	if (value) {
		ZVAL_COPY_DEREF(result, value);
	} else {
		ZVAL_UNDEF(result);
	}
}

/* The time zone that PHP's dates are in; NULL when there is none. */
const char *heartbus_time_zone(void)
{
	timelib_tzinfo *zone = get_timezone_info();
	return zone ? zone->name : NULL;
}

/* How far it is ahead of UTC at that moment, in seconds: as idate() asks, which passes false for local time. */
int heartbus_time_zone_offset(int64_t unix_time) { return php_idate('Z', (time_t) unix_time, false); }

/* ---- processes ---- */

static unsigned generation;

static void (*forked)(void);

static void after_fork_in_child(void)
{
	generation++;
	forked();
}

/* `in_child` may do what a signal handler may. */
void heartbus_watch_forks(void (*in_child)(void))
{
	forked = in_child;
	pthread_atfork(NULL, NULL, after_fork_in_child);
}

/* Differs between a process and the one it was forked from. */
unsigned heartbus_generation(void) { return generation; }

/* ---- waiting ---- */

static const int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};
#define STOP_SIGNALS (sizeof(stop_signals) / sizeof(stop_signals[0]))

static volatile sig_atomic_t stop_signal;
static unsigned loop_generation;

static void on_stop_signal(int number)
{
	/* A hang-up does not insist: it comes along with other signals. */
	bool insists = number != SIGHUP && stop_signal && stop_signal != SIGHUP;
	/* In a child that a callback forked nobody looks at the flag. Here nobody has looked yet: a callback does not return, and
	   whoever asks again means it. */
	if (generation != loop_generation || insists) {
		signal(number, SIG_DFL);
		raise(number);
		return;
	}
	if (number != SIGHUP || !stop_signal) {
		stop_signal = number;
	}
}

typedef struct {
	struct sigaction before[STOP_SIGNALS];
	bool taken[STOP_SIGNALS];
} heartbus_signals;

size_t heartbus_signals_size(void) { return sizeof(heartbus_signals); }

/* Takes the stop signals that nobody handles. One that is ignored (nohup) stays ignored. */
void heartbus_signals_take(heartbus_signals *signals)
{
	struct sigaction action;
	loop_generation = generation;
	memset(&action, 0, sizeof(action));
	action.sa_handler = on_stop_signal;
	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < STOP_SIGNALS; i++) {
		/* zend_sigaction and not sigaction: PHP keeps its own table of handlers in front of the kernel's. */
		zend_sigaction(stop_signals[i], NULL, &signals->before[i]);
		signals->taken[i] = signals->before[i].sa_handler == SIG_DFL;
		if (signals->taken[i]) {
			zend_sigaction(stop_signals[i], &action, NULL);
		}
	}
}

void heartbus_signals_give_back(heartbus_signals *signals)
{
	struct sigaction now;
	for (size_t i = 0; i < STOP_SIGNALS; i++) {
		zend_sigaction(stop_signals[i], NULL, &now);
		/* A handler that was installed meanwhile stays. */
		if (signals->taken[i] && now.sa_handler == on_stop_signal) {
			zend_sigaction(stop_signals[i], &signals->before[i], NULL);
		}
	}
}

/* The stop signal that came since the last call, or 0. */
int heartbus_signals_next(void)
{
	int number = stop_signal;
	stop_signal = 0;
	return number;
}

#if PHP_VERSION_ID >= 80200
#define FLAG_IS_SET(flag) zend_atomic_bool_load_ex(&(flag))
#define CLEAR_FLAG(flag) zend_atomic_bool_store_ex(&(flag), false)
#else
#define FLAG_IS_SET(flag) (flag)
#define CLEAR_FLAG(flag) ((flag) = 0)
#endif

/* What the VM does between two opcodes: time limits, and pcntl's handlers with async signals. */
void heartbus_run_interrupts(void)
{
	if (!FLAG_IS_SET(EG(vm_interrupt))) {
		return;
	}
	CLEAR_FLAG(EG(vm_interrupt));
	if (FLAG_IS_SET(EG(timed_out))) {
		zend_timeout();
	} else if (zend_interrupt_function) {
		zend_interrupt_function(EG(current_execute_data));
	}
}

/* Runs the handlers of pcntl_signal() whose signals came, as pcntl_signal_dispatch() does: with all signals held back. */
void heartbus_dispatch_signals(void)
{
	zend_function *dispatch = zend_hash_str_find_ptr(EG(function_table), ZEND_STRL("pcntl_signal_dispatch"));
	zval result;
	if (!dispatch) {
		return;
	}
	ZVAL_UNDEF(&result);
	zend_call_known_function(dispatch, NULL, NULL, &result, 0, NULL, NULL);
	zval_ptr_dtor(&result);
}

/* Waits until `fd` (none: -1) is readable, `nanoseconds` (negative: for ever) have passed, or a signal came. A signal
   that came just before is not missed: from the check on they are held back until ppoll lets them in. With `dispatch`, the
   handlers of pcntl_signal() run then as well: pcntl tells nobody that some wait.
   1: readable, 0: time is up, -1: a signal came, or a handler threw. */
int heartbus_wait(int fd, int64_t nanoseconds, bool dispatch)
{
	sigset_t all, before;
	struct pollfd poll = {.fd = fd, .events = POLLIN, .revents = 0};
	struct timespec timeout = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
	int ready = -1;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (dispatch) {
		heartbus_dispatch_signals();
	}
	if (!EG(exception) && !stop_signal && !FLAG_IS_SET(EG(vm_interrupt))) {
		ready = ppoll(&poll, 1, nanoseconds < 0 ? NULL : &timeout, &before);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return ready;
}
