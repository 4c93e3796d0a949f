/*
 * What classes with private state need of PHP's macros and inline functions: private typed properties, arrays in them,
 * calls by name, the current fiber. No logic of the extension is here; the Rust side of each function is in state.rs.
 */
#include "php.h"
#include "ext/date/php_date.h"
#include "ext/json/php_json.h"
#include "ext/standard/md5.h"
#include "zend_exceptions.h"
#include "zend_fibers.h"
#include "zend_interfaces.h"
#include "zend_smart_str.h"

/* ---- private properties ---- */

/* PHP's numbers for types differ between its versions: they are known here only. */
static const struct { const char *name; int code; } types[] = {
	{"int", IS_LONG}, {"float", IS_DOUBLE}, {"string", IS_STRING}, {"bool", _IS_BOOL}, {"array", IS_ARRAY}, {"object", IS_OBJECT},
	{"mixed", IS_MIXED},
};

/* `type_name` is one of these, or a class. */
void heartbus_declare_private(zend_class_entry *ce, const char *name, size_t len, const char *type_name, size_t type_len,
	bool nullable, bool is_static, zval *initial)
{
	int type = 0;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (strlen(types[i].name) == type_len && memcmp(types[i].name, type_name, type_len) == 0) {
			type = types[i].code;
		}
	}
	zend_string *key = zend_string_init_interned(name, len, 1);
	int flags = ZEND_ACC_PRIVATE | (is_static ? ZEND_ACC_STATIC : 0);
	zend_type declared = type
		? (zend_type) ZEND_TYPE_INIT_CODE(type, nullable, 0)
		: (zend_type) ZEND_TYPE_INIT_CLASS(zend_string_init_interned(type_name, type_len, 1), nullable, 0);
	zend_declare_typed_property(ce, key, initial, flags, NULL, declared);
	zend_string_release(key);
}

/* The value of a private static property, or NULL while it is null. */
zval *heartbus_static_find(zend_class_entry *ce, const char *name, size_t len)
{
	zval *value = zend_read_static_property(ce, name, len, 1);
	return value && Z_TYPE_P(value) != IS_NULL ? value : NULL;
}

void heartbus_static_set(zend_class_entry *ce, const char *name, size_t len, zval *value)
{
	zend_update_static_property(ce, name, len, value);
}

/* ---- arrays, with PHP's rules for keys like "12"; what is written belongs to the array from then on ---- */

zval *heartbus_table_find(zval *array, const char *key, size_t len) { return zend_symtable_str_find(Z_ARRVAL_P(array), key, len); }
zval *heartbus_table_find_index(zval *array, zend_long key) { return zend_hash_index_find(Z_ARRVAL_P(array), key); }

/* The old value goes last: its destructor may look at the array, or change it. */
static void replace(zval *place, zval *value)
{
	zval old;
	ZVAL_DEREF(place);
	ZVAL_COPY_VALUE(&old, place);
	ZVAL_COPY_VALUE(place, value);
	zval_ptr_dtor(&old);
}

void heartbus_table_set(zval *array, const char *key, size_t len, zval *value)
{
	zval *place;
	SEPARATE_ARRAY(array);
	place = zend_symtable_str_find(Z_ARRVAL_P(array), key, len);
	if (place) {
		replace(place, value);
	} else {
		zend_symtable_str_update(Z_ARRVAL_P(array), key, len, value);
	}
}

void heartbus_table_set_index(zval *array, zend_long key, zval *value)
{
	zval *place;
	SEPARATE_ARRAY(array);
	place = zend_hash_index_find(Z_ARRVAL_P(array), key);
	if (place) {
		replace(place, value);
	} else {
		zend_hash_index_update(Z_ARRVAL_P(array), key, value);
	}
}

void heartbus_table_delete(zval *array, const char *key, size_t len)
{
	SEPARATE_ARRAY(array);
	zend_symtable_str_del(Z_ARRVAL_P(array), key, len);
}

void heartbus_table_delete_index(zval *array, zend_long key)
{
	SEPARATE_ARRAY(array);
	zend_hash_index_del(Z_ARRVAL_P(array), key);
}

/* The array under a key, ready to be changed; an empty one is put there where there is none. */
zval *heartbus_table_open(zval *array, const char *key, size_t len)
{
	zval *inner, empty;
	SEPARATE_ARRAY(array);
	inner = zend_symtable_str_find(Z_ARRVAL_P(array), key, len);
	if (inner) {
		ZVAL_DEREF(inner);
	}
	if (!inner || Z_TYPE_P(inner) != IS_ARRAY) {
		ZVAL_EMPTY_ARRAY(&empty);
		inner = zend_symtable_str_update(Z_ARRVAL_P(array), key, len, &empty);
	}
	SEPARATE_ARRAY(inner);
	return inner;
}

/* ---- arrays as queues ---- */

/* Numbers the items from 0. */
void heartbus_queue_renumber(zval *array)
{
	zval list, *item;
	if (zend_array_is_list(Z_ARRVAL_P(array))) {
		return;
	}
	array_init_size(&list, zend_hash_num_elements(Z_ARRVAL_P(array)));
	ZEND_HASH_FOREACH_VAL(Z_ARRVAL_P(array), item) {
		Z_TRY_ADDREF_P(item);
		zend_hash_next_index_insert(Z_ARRVAL(list), item);
	} ZEND_HASH_FOREACH_END();
	zval_ptr_dtor(array);
	ZVAL_COPY_VALUE(array, &list);
}

void heartbus_queue_push(zval *array, zval *item)
{
	HashTable *queue = Z_ARRVAL_P(array);
	/* PHP never reuses the room in front of a list: without this, a queue that is never empty would only grow. */
	if (queue->nNumUsed == queue->nTableSize && queue->nNumOfElements <= queue->nNumUsed / 2) {
		heartbus_queue_renumber(array);
	}
	SEPARATE_ARRAY(array);
	zend_hash_next_index_insert(Z_ARRVAL_P(array), item);
}

/* Takes the oldest item out. The array's own cursor stands on it, so that the holes in front are not walked each time. */
bool heartbus_queue_shift(zval *array, zval *item)
{
	HashTable *queue;
	zend_string *name;
	zend_ulong number;
	zval *first;
	if (zend_hash_num_elements(Z_ARRVAL_P(array)) == 0) {
		return false;
	}
	SEPARATE_ARRAY(array);
	queue = Z_ARRVAL_P(array);
	if (zend_hash_num_elements(queue) == 1) {
		zend_hash_internal_pointer_reset(queue);
	}
	first = zend_hash_get_current_data(queue);
	if (!first) {
		zend_hash_internal_pointer_reset(queue);
		first = zend_hash_get_current_data(queue);
	}
	ZVAL_COPY_DEREF(item, first);
	if (zend_hash_num_elements(queue) == 1) {
		zval_ptr_dtor(array);
		ZVAL_EMPTY_ARRAY(array);
	} else if (zend_hash_get_current_key(queue, &name, &number) == HASH_KEY_IS_STRING) {
		zend_hash_del(queue, name);
	} else {
		zend_hash_index_del(queue, number);
	}
	return true;
}

/* ---- calls ---- */

/* A method by its name in lower case, as `$object->name()` finds it. False when an exception is pending. */
bool heartbus_invoke(zend_object *object, const char *name, size_t len, zval *result, uint32_t count, zval *arguments)
{
	zend_function *method = zend_hash_str_find_ptr(&object->ce->function_table, name, len);
	ZVAL_UNDEF(result);
	if (!method || !(method->common.fn_flags & ZEND_ACC_PUBLIC)) {
		zend_throw_error(NULL, "Call to undefined method %s::%s()", ZSTR_VAL(object->ce->name), name);
		return false;
	}
	GC_ADDREF(object);
	zend_call_known_function(method, object, object->ce, result, count, arguments, NULL);
	OBJ_RELEASE(object);
	return EG(exception) == NULL;
}

/* A function, or a static method as "Class::method". */
bool heartbus_call(const char *name, size_t len, zval *result, uint32_t count, zval *arguments)
{
	zval callable;
	ZVAL_STRINGL(&callable, name, len);
	ZVAL_UNDEF(result);
	call_user_function(NULL, NULL, &callable, result, count, arguments);
	zval_ptr_dtor(&callable);
	return EG(exception) == NULL;
}

bool heartbus_function_exists(const char *name, size_t len) { return zend_hash_str_exists(EG(function_table), name, len); }

bool heartbus_has_method(const zend_object *object, const char *name, size_t len)
{
	return zend_hash_str_exists(&object->ce->function_table, name, len);
}

bool heartbus_instance_of(const zend_object *object, const zend_class_entry *ce) { return instanceof_function(object->ce, ce); }

void heartbus_argument_type(uint32_t number, const char *type, const zval *value)
{
	zend_argument_type_error(number, "must be of type %s, %s given", type, zend_zval_type_name(value));
}

/* ---- exceptions ---- */

/* As `catch (\Exception $e) {}`. What is no Exception (an Error, an exit) stays. */
bool heartbus_catch_exception(void)
{
	if (!EG(exception) || !instanceof_function(EG(exception)->ce, zend_ce_exception)) {
		return false;
	}
	zend_clear_exception();
	return true;
}

/* As `catch (\Throwable $e) { error_log("$what: " . $e->getMessage()); }`. */
bool heartbus_log_throwable(const char *what)
{
	zval copy, *message;
	zend_object *thrown = EG(exception);
	char *line;
	if (!thrown || !instanceof_function(thrown->ce, zend_ce_throwable)) {
		return false;
	}
	GC_ADDREF(thrown);
	zend_clear_exception();
	message = zend_read_property(thrown->ce, thrown, "message", sizeof("message") - 1, 1, &copy);
	spprintf(&line, 0, "%s: %s", what, Z_TYPE_P(message) == IS_STRING ? Z_STRVAL_P(message) : "");
	php_log_err(line);
	efree(line);
	OBJ_RELEASE(thrown);
	return true;
}

void heartbus_throw_division_by_zero(void) { zend_throw_error(zend_ce_division_by_zero_error, "Division by zero"); }

/* Of one of our classes' own properties: `ce` may be a subclass. */
void heartbus_throw_uninitialized(const zend_class_entry *ce, const char *name)
{
	while (ce->type == ZEND_USER_CLASS) {
		ce = ce->parent;
	}
	zend_throw_error(NULL, "Typed property %s::$%s must not be accessed before initialization", ZSTR_VAL(ce->name), name);
}

/* throw $object; */
void heartbus_throw(zval *object)
{
	Z_ADDREF_P(object);
	zend_throw_exception_object(object);
}

/* ---- fibers ---- */

bool heartbus_current_fiber(zval *result)
{
	if (!EG(active_fiber)) {
		return false;
	}
	ZVAL_OBJ_COPY(result, &EG(active_fiber)->std);
	return true;
}

/* ---- the rest of PHP's standard library that has an interface in C ---- */

void heartbus_print(const char *text, size_t len) { php_output_write(text, len); }
size_t heartbus_memory_usage(bool peak) { return peak ? zend_memory_peak_usage(true) : zend_memory_usage(true); }

/* date($format) */
void heartbus_date(const char *format, size_t len, zval *result) { ZVAL_STR(result, php_format_date(format, len, time(NULL), true)); }

/* The 32 digits of md5($text), and a NUL. */
void heartbus_md5(const char *text, size_t len, char *digits)
{
	PHP_MD5_CTX context;
	unsigned char digest[16];
	PHP_MD5Init(&context);
	PHP_MD5Update(&context, text, len);
	PHP_MD5Final(digest, &context);
	make_digest_ex(digits, digest, sizeof(digest));
}

/* json_encode() of whatever can be encoded: what cannot becomes null or U+FFFD. */
bool heartbus_json_encode_lossy(zval *value, bool pretty, zval *result)
{
	smart_str text = {0};
	int options = PHP_JSON_PARTIAL_OUTPUT_ON_ERROR | PHP_JSON_INVALID_UTF8_SUBSTITUTE | (pretty ? PHP_JSON_PRETTY_PRINT : 0);
	php_json_encode(&text, value, options);
	if (EG(exception) || !text.s) {
		smart_str_free(&text);
		return false;
	}
	ZVAL_STR(result, smart_str_extract(&text));
	return true;
}

/* ksort($array) */
void heartbus_sort_by_key(zval *array)
{
	zval name, argument, result;
	ZVAL_COPY(&argument, array);
	ZVAL_NEW_REF(&argument, &argument);
	ZVAL_STRING(&name, "ksort");
	ZVAL_UNDEF(&result);
	call_user_function(NULL, NULL, &name, &result, 1, &argument);
	zval_ptr_dtor(&name);
	zval_ptr_dtor(array);
	ZVAL_COPY(array, Z_REFVAL(argument));
	zval_ptr_dtor(&argument);
}

/* (string) $value; false when an exception is pending. */
bool heartbus_to_string(zval *value, zval *result)
{
	zend_string *text = zval_try_get_string(value);
	if (!text) {
		return false;
	}
	ZVAL_STR(result, text);
	return true;
}
