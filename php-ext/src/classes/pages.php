<?php
// Walks a long list page by page, so that it is never there as a whole. Loaded by the extension when somebody walks one.

return [
    'walk' => static function (\Closure $page, int $size): \Generator {
        $next = null;
        do {
            [$items, $next] = $page($next, $size);
            yield from $items;
        } while ($next !== null);
    },
];
