//! Declares classes to PHP from signatures written as PHP writes them, so that Reflection shows exactly what stands in
//! the source.

use crate::php::{self, Call, Outcome};
use ext_php_rs::args::Arg;
use ext_php_rs::builders::{ClassBuilder, FunctionBuilder};
use ext_php_rs::flags::{DataType, MethodFlags};
use ext_php_rs::types::Zval;
use ext_php_rs::zend::ExecuteData;

/// A method as PHP calls it. The Rust function `F` is known by its type alone: function items have no size.
extern "C" fn handler<F: Fn(&mut Call<'_>) -> Outcome + Copy>(frame: &mut ExecuteData, result: &mut Zval) {
    const { assert!(size_of::<F>() == 0) };
    // SAFETY: a type without a size has exactly one value, and any aligned pointer is a pointer to it.
    let body = unsafe { std::ptr::NonNull::<F>::dangling().read() };
    php::run(frame, result, body);
}

pub(crate) trait Declare: Sized {
    /// A method: `static foo(string $bar, int $baz = 0): ?int`. Public unless it begins with `private`.
    fn declare<F: Fn(&mut Call<'_>) -> Outcome + Copy>(self, signature: &'static str, body: F) -> Self;
}

impl Declare for ClassBuilder {
    fn declare<F: Fn(&mut Call<'_>) -> Outcome + Copy>(self, signature: &'static str, body: F) -> Self {
        let mut rest = signature;
        let mut flags = MethodFlags::Public;
        if let Some(signature) = rest.strip_prefix("private ") {
            (rest, flags) = (signature, MethodFlags::Private);
        }
        if let Some(signature) = rest.strip_prefix("static ") {
            (rest, flags) = (signature, flags | MethodFlags::Static);
        }
        self.method(function(rest, body), flags)
    }
}

/// A function, as [`Declare::declare`] reads methods.
pub(crate) fn function<F: Fn(&mut Call<'_>) -> Outcome + Copy>(signature: &'static str, _: F) -> FunctionBuilder<'static> {
    let (name, rest) = signature.split_once('(').expect("a parameter list");
    let (parameters, result) = rest.rsplit_once(')').expect("a closed parameter list");

    let mut function = FunctionBuilder::new(name, handler::<F>);
    let mut required = 0;
    for parameter in parameters.split(", ").filter(|parameter| !parameter.is_empty()) {
        let (declared, default) = parameter.split_once(" = ").map_or((parameter, None), |(name, value)| (name, Some(value)));
        let (kind, name) = declared.split_once(" $").expect("a type and a name");
        let (kind, nullable) = data_type(kind);
        let mut argument = Arg::new(name, kind);
        if nullable {
            argument = argument.allow_null();
        }
        match default {
            Some(value) => argument = argument.default(value),
            None => required += 1,
        }
        function = function.arg(argument);
    }
    function = function.required_args(required);
    if let Some(kind) = result.strip_prefix(": ") {
        let (kind, nullable) = data_type(kind);
        function = function.returns(kind, false, nullable);
    }
    function
}

fn data_type(name: &'static str) -> (DataType, bool) {
    let (name, nullable) = name.strip_prefix('?').map_or((name, false), |name| (name, true));
    let kind = match name {
        "int" => DataType::Long,
        "float" => DataType::Double,
        "string" => DataType::String,
        "bool" => DataType::Bool,
        "array" => DataType::Array,
        "callable" => DataType::Callable,
        "mixed" => DataType::Mixed,
        "object" => DataType::ANY_OBJECT,
        "void" => DataType::Void,
        class => DataType::object(class),
    };
    (kind, nullable)
}
