<?php

declare(strict_types=1);

namespace Tidegate;

/** Try the job again later. */
final class Retry extends \Exception
{
    /** @param ?float $delay in seconds. Without it, after the pool's backoff */
    public function __construct(public readonly ?float $delay = null)
    {
        parent::__construct('asked for a later attempt');
    }
}
