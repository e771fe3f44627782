<?php

declare(strict_types=1);

namespace Tidegate;

/** A reply of bytes. A reply that is a string must be UTF-8. */
final class Bytes
{
    public function __construct(public readonly string $bytes)
    {
    }
}
