//! AMQP 0-9-1's grammar as RabbitMQ and lapin implement it, checked without recursion and without copying. Pure.

/// Deepest nesting of tables and lists, the header table included, that lapin receives and jobs see. Lapin's parser
/// recurses, so the depth must be bounded.
pub(super) const MAX_DEPTH: usize = 64;

/// The form of a value, by its type tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// This number of bytes.
    Fixed(usize),
    /// A length of four bytes, then that number of bytes.
    Sized,
    /// A length of four bytes, then values.
    List,
    /// A length of four bytes, then names with values.
    Table,
}

impl ValueKind {
    pub(super) fn of(tag: u8) -> Option<Self> {
        Some(match tag {
            b'V' => Self::Fixed(0),
            b't' | b'b' | b'B' => Self::Fixed(1),
            b's' | b'U' | b'u' => Self::Fixed(2),
            b'I' | b'i' | b'f' => Self::Fixed(4),
            b'D' => Self::Fixed(5),
            b'L' | b'l' | b'd' | b'T' => Self::Fixed(8),
            b'S' | b'x' => Self::Sized,
            b'A' => Self::List,
            b'F' => Self::Table,
            _ => return None,
        })
    }
}

/// The form of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PropertyKind {
    /// A length of one byte, then that number of bytes.
    Text,
    /// One byte.
    Octet,
    /// Eight bytes.
    Timestamp,
    /// The header table.
    Headers,
}

/// The forms of the properties in their order, from the highest bit of the flags down.
pub(super) const PROPERTIES: [PropertyKind; 14] = [
    PropertyKind::Text,      // content_type
    PropertyKind::Text,      // content_encoding
    PropertyKind::Headers,   // headers
    PropertyKind::Octet,     // delivery_mode
    PropertyKind::Octet,     // priority
    PropertyKind::Text,      // correlation_id
    PropertyKind::Text,      // reply_to
    PropertyKind::Text,      // expiration
    PropertyKind::Text,      // message_id
    PropertyKind::Timestamp, // timestamp
    PropertyKind::Text,      // type
    PropertyKind::Text,      // user_id
    PropertyKind::Text,      // app_id
    PropertyKind::Text,      // cluster_id
];

/// The flag that says whether the property at this index is present.
pub(super) fn flag(place: usize) -> u16 {
    1 << (15 - place)
}

/// Reads bytes from the front. Each method returns `None` if fewer bytes are left than it needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A length of one byte, then that number of bytes.
    pub(super) fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A length of four bytes, then that number of bytes.
    pub(super) fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }
}

/// Requirements beyond the grammar.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requirements {
    /// Names must be UTF-8.
    pub(super) utf8: bool,
    /// Deepest nesting of containers.
    pub(super) depth: usize,
}

/// What lapin requires.
pub(super) const LAPIN_REQUIREMENTS: Requirements = Requirements {
    utf8: true,
    depth: MAX_DEPTH,
};

/// What a broker requires.
pub(super) const BROKER_REQUIREMENTS: Requirements = Requirements {
    utf8: false,
    depth: usize::MAX,
};

/// Whether the content of a container is well formed.
pub(super) fn is_container(content: &[u8], kind: ValueKind, requirements: Requirements) -> bool {
    walk(content, kind, requirements).is_some()
}

fn walk(content: &[u8], kind: ValueKind, requirements: Requirements) -> Option<()> {
    if requirements.depth == 0 {
        return None;
    }
    // Where the walk continues after each container around the current one. Most headers are flat, and then nothing
    // is allocated.
    let mut outer: Vec<(Cursor<'_>, ValueKind)> = Vec::new();
    let mut inner = (Cursor(content), kind);
    loop {
        let (at, kind) = &mut inner;
        if at.0.is_empty() {
            match outer.pop() {
                Some(next) => inner = next,
                None => return Some(()),
            }
            continue;
        }
        if *kind == ValueKind::Table {
            let name = at.short()?;
            if requirements.utf8 && !is_utf8(name) {
                return None;
            }
        }
        match ValueKind::of(at.u8()?)? {
            ValueKind::Fixed(bytes) => {
                at.take(bytes)?;
            }
            ValueKind::Sized => {
                at.long()?;
            }
            deeper @ (ValueKind::List | ValueKind::Table) => {
                let content = at.long()?;
                if outer.len() + 1 >= requirements.depth {
                    return None;
                }
                outer.push(inner);
                inner = (Cursor(content), deeper);
            }
        }
    }
}

/// Whether lapin can read a property list: the flags, the properties that the flags announce, and nothing after them.
pub(super) fn is_plain(list: &[u8]) -> bool {
    let walk = || {
        let mut at = Cursor(list);
        let flags = at.u16()?;
        for (place, property) in PROPERTIES.into_iter().enumerate() {
            if flags & flag(place) == 0 {
                continue;
            }
            match property {
                PropertyKind::Text => {
                    if !is_utf8(at.short()?) {
                        return None;
                    }
                }
                PropertyKind::Octet => {
                    at.u8()?;
                }
                PropertyKind::Timestamp => {
                    at.u64()?;
                }
                PropertyKind::Headers => {
                    if !is_container(at.long()?, ValueKind::Table, LAPIN_REQUIREMENTS) {
                        return None;
                    }
                }
            }
        }
        at.0.is_empty().then_some(())
    };
    walk().is_some()
}

fn is_utf8(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}
