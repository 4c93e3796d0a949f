<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/** A PHP library that tests use when it is there: in vendor/, or in the folder that an environment variable names. */
final class Library
{
    private const KNOWN = [
        'Revolt' => ['revolt/event-loop', 'HEARTBUS_REVOLT', 'Revolt\\', 'EventLoop.php'],
        'ReactPHP' => ['react/event-loop', 'HEARTBUS_REACT', 'React\\EventLoop\\', 'Loop.php'],
        'PSR-3' => ['psr/log', 'HEARTBUS_PSR_LOG', 'Psr\\Log\\', 'LoggerInterface.php'],
        'pfinal-asyncio' => ['pfinalclub/asyncio', 'HEARTBUS_ASYNCIO', 'PfinalClub\\Asyncio\\', 'functions.php'],
    ];

    /** PHP code that lets a script autoload the library; the test is skipped where there is none. */
    public static function autoload(string $name): string
    {
        [$package, $variable, $prefix, $file] = self::KNOWN[$name];
        // A variable may name several folders; the last is the newest version by habit, and one is enough here.
        $named = array_reverse(explode(PATH_SEPARATOR, (string) getenv($variable)));
        foreach ([dirname(__DIR__, 3) . "/vendor/$package", ...$named] as $folder) {
            if ($folder !== '' && is_file("$folder/src/$file")) {
                return sprintf('spl_autoload_register(function (string $class): void {
                    $file = %s . strtr(substr($class, %d), "\\\\", "/") . ".php";
                    if (str_starts_with($class, %s) && is_file($file)) { require_once $file; }
                });', var_export("$folder/src/", true), strlen($prefix), var_export($prefix, true))
                    . ($file === 'functions.php' ? sprintf('require %s;', var_export("$folder/src/$file", true)) : '') . "\n";
            }
        }
        Assert::markTestSkipped("$name is neither in vendor/$package nor in the folder that $variable names");
    }
}
