<?php

declare(strict_types=1);

namespace Tidegate;

/** The job can never succeed: its message is dead-lettered with this reason. */
final class Reject extends \Exception
{
}
