<?php

namespace Heartbus\Tests;

use ReflectionClass;
use ReflectionClassConstant;
use ReflectionFunction;
use ReflectionFunctionAbstract;
use ReflectionMethod;
use ReflectionParameter;
use ReflectionProperty;

/** Classes and functions as Reflection sees them, as data: what callers and subclasses depend on. */
final class Signatures
{
    public const CLASSES = [
        'Channel\Channel', 'Channel\ChannelScheduler', 'Channel\MessageRouter', 'Client\TcpMultiplexClient', 'Node\HeartbeatMonitor', 'Node\Node',
        'Node\NodeManager', 'Protocol\HeartbeatProtocol', 'Protocol\Message', 'Server\ConnectionPool', 'Server\TcpMultiplexServer',
        'Utils\ConfigValidator', 'Utils\Logger', 'Utils\Metrics', 'Utils\RateLimiter',
    ];

    public const FUNCTIONS = ['hb_log', 'hb_metric_inc', 'hb_metric_set', 'hb_metric_observe', 'hb_format_bytes', 'hb_format_duration',
        'hb_memory_usage', 'hb_generate_node_id', 'hb_benchmark'];

    /** @return array<string, array<string, string>> */
    public static function all(): array
    {
        $all = [];
        foreach (self::CLASSES as $class) {
            $all[$class] = self::ofClass(new ReflectionClass("PfinalClub\\AsyncioHeartbeat\\$class"));
        }
        foreach (self::FUNCTIONS as $function) {
            $all['functions'][$function] = self::of(new ReflectionFunction($function));
        }
        return $all;
    }

    private static function ofClass(ReflectionClass $class): array
    {
        $members = ['class' => ($class->isFinal() ? 'final ' : '') . ($class->isInstantiable() ? 'instantiable' : 'not instantiable')];
        foreach ($class->getReflectionConstants(ReflectionClassConstant::IS_PUBLIC) as $constant) {
            $members["const $constant->name"] = var_export($constant->getValue(), true);
        }
        foreach ($class->getProperties(ReflectionProperty::IS_PUBLIC) as $property) {
            $members["\$$property->name"] = ($property->isReadOnly() ? 'readonly ' : '') . ($property->isStatic() ? 'static ' : '') . $property->getType();
        }
        foreach ($class->getMethods(ReflectionMethod::IS_PUBLIC) as $method) {
            $members["$method->name()"] = ($method->isStatic() ? 'static ' : '') . ($method->isFinal() ? 'final ' : '') . self::of($method);
        }
        return $members;
    }

    private static function of(ReflectionFunctionAbstract $function): string
    {
        $parameters = array_map(fn (ReflectionParameter $parameter) => $parameter->getType() . " \$$parameter->name"
            . ($parameter->isDefaultValueAvailable() ? ' = ' . var_export($parameter->getDefaultValue(), true) : ''), $function->getParameters());
        return preg_replace('/\s+/', ' ', '(' . implode(', ', $parameters) . '): ' . $function->getReturnType());
    }
}
