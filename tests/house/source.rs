//! The source of a crate as a graph: which file names what of which other file.
//!
//! Reads tokens, not types: a path that begins with `crate`, `self` or `super`, with a module below this one, or with a name
//! that a `use` brought in, is followed through re-exports to the file that has the thing itself. It may be in a `use` or in
//! the middle of the code. Code of tests is left out, and so is what a method call or a type inferred would need to be
//! known.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path from the crate's root, without `crate`.
type Segments = Vec<String>;

/// One crate.
pub(crate) struct Crate {
    /// Its modules, each with the file that has it.
    modules: BTreeMap<Segments, Module>,
}

struct Module {
    /// From the workspace's root.
    file: String,
    /// What `use` brings in, by the name that it has here.
    imports: BTreeMap<String, Segments>,
    /// Every path of this crate that is named, in a `use` or elsewhere, but for re-exports.
    paths: BTreeSet<Segments>,
    /// Paths in the code that begin with any other name. Where that is a module, they become `paths`.
    relative: BTreeSet<Segments>,
    /// The paths of other crates, in a `use` alone, with the names that they have here and whether they are re-exports.
    foreign: BTreeMap<Segments, (String, bool)>,
}

impl Crate {
    /// Reads all files below `src`, which is relative to the workspace's root.
    pub(crate) fn read(src: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut modules = BTreeMap::new();
        for path in files(src) {
            let below = path.strip_prefix(src).expect("it is below");
            let text = fs::read_to_string(root.join(&path)).expect("a source file");
            modules.extend(Module::read(below, path.display().to_string(), &text));
        }
        assert!(!modules.is_empty(), "no source in {src}");
        Self::whole(modules)
    }

    /// A crate of these files, each with its text.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let modules = files.iter();
        let modules = modules
            .filter_map(|(file, text)| Module::read(Path::new(file), (*file).to_owned(), text));
        Self::whole(modules.collect())
    }

    fn whole(mut modules: BTreeMap<Segments, Module>) -> Self {
        let names: BTreeSet<Segments> = modules.keys().cloned().collect();
        for (here, module) in &mut modules {
            // A path that begins with a module of this one's.
            let own = |path: &Segments| names.contains(&[here.as_slice(), &path[..1]].concat());
            let (below, foreign) = std::mem::take(&mut module.foreign)
                .into_iter()
                .partition(|(path, _)| own(path));
            module.foreign = foreign;
            for (path, (name, is_reexport)) in below {
                let path = [here.as_slice(), &path].concat();
                if !is_reexport {
                    module.paths.insert(path.clone());
                }
                module.imports.insert(name, path);
            }
            for path in std::mem::take(&mut module.relative) {
                if own(&path) {
                    module.paths.insert([here.as_slice(), &path].concat());
                } else if let Some(import) = module.imports.get(&path[0]) {
                    let whole = [import.as_slice(), &path[1..]].concat();
                    module.paths.insert(whole);
                }
            }
        }
        Self { modules }
    }

    /// The files that name something below this path of another crate.
    pub(crate) fn foreign<'c>(&'c self, path: &'c [&str]) -> impl Iterator<Item = &'c str> {
        let modules = self.modules.values();
        let naming = modules.filter(move |module| {
            let mut paths = module.foreign.keys();
            paths.any(|named| named.iter().zip(path).filter(|(a, b)| a == b).count() == path.len())
        });
        naming.map(|module| module.file.as_str())
    }

    /// Which files each file names something of, itself left out.
    pub(crate) fn edges(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let edges = self.modules.values().map(|module| {
            let named = module.paths.iter().filter_map(|path| self.home_of(path, 0));
            let others = named.filter(|file| *file != module.file).collect();
            (module.file.as_str(), others)
        });
        edges.collect()
    }

    /// The file that has what `path` names, beyond all re-exports.
    fn home_of(&self, path: &[String], followed: usize) -> Option<&str> {
        assert!(followed < 20, "re-exports go round: {path:?}");
        let module = (0..=path.len()).rev().find_map(|length| {
            let module = self.modules.get(&path[..length])?;
            Some((module, &path[length..]))
        });
        let (module, rest) = module?;
        let Some(name) = rest.first() else {
            return Some(&module.file);
        };
        match module.imports.get(name) {
            Some(import) => {
                let whole = [import.as_slice(), &rest[1..]].concat();
                self.home_of(&whole, followed + 1)
            }
            // What a module offers of another crate is that crate's.
            None if module.offers_foreign(name) => None,
            None => Some(&module.file),
        }
    }
}

/// The files of Rust below a folder. Both are relative to the workspace's root.
pub(crate) fn files(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join(folder), &mut files);
    for file in &mut files {
        *file = file.strip_prefix(root).expect("it is below").to_owned();
    }
    files
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of source") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The module of a file; `None` for tests, and for a program beside its library, which is a crate of its own.
fn module_of(file: &Path) -> Option<Segments> {
    let mut segments: Segments = file
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if segments.iter().any(|part| part == "tests") {
        return None;
    }
    match segments.last()?.as_str() {
        "main" => return None,
        "mod" | "lib" => {
            segments.pop();
        }
        _ => {}
    }
    Some(segments)
}

impl Module {
    /// Whether a re-export of this name comes from another crate.
    fn offers_foreign(&self, name: &str) -> bool {
        let mut foreign = self.foreign.values();
        foreign.any(|(own, is_reexport)| *is_reexport && own == name)
    }

    fn read(below: &Path, file: String, text: &str) -> Option<(Segments, Self)> {
        let segments = module_of(below)?;
        let tokens: TokenStream = text.parse().expect("it is Rust");
        let mut module = Self {
            file,
            imports: BTreeMap::new(),
            paths: BTreeSet::new(),
            relative: BTreeSet::new(),
            foreign: BTreeMap::new(),
        };
        module.walk(tokens, &segments);
        Some((segments, module))
    }

    /// Notes what these tokens name. `here` is the module that they are in.
    fn walk(&mut self, tokens: TokenStream, here: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        let mut is_public = false;
        while at < tokens.len() {
            let was_public = is_public;
            is_public = matches!(&tokens[at], TokenTree::Ident(word) if word == "pub")
                || (was_public && matches!(&tokens[at], TokenTree::Group(_)));
            match &tokens[at] {
                TokenTree::Ident(word) if word == "use" => {
                    let end = (at..tokens.len())
                        .find(|&end| is_punct(tokens.get(end), ';'))
                        .unwrap_or(tokens.len());
                    self.take_use(&tokens[at + 1..end], &[], here, was_public);
                    at = end;
                }
                // `pub(in crate::run)` names nothing.
                TokenTree::Group(_) if was_public => {}
                TokenTree::Ident(word) if word == "mod" => {
                    if let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(group))) =
                        (tokens.get(at + 1), tokens.get(at + 2))
                    {
                        let name = name.to_string();
                        if name != "tests" {
                            self.walk(group.stream(), &[here, &[name]].concat());
                        }
                        at += 2;
                    }
                }
                TokenTree::Ident(word) if is_path_sep(&tokens, at + 1) => {
                    let (path, next) = take_path(&tokens, at);
                    match is_root(&word.to_string()) {
                        true => self.paths.extend(resolve(&path, here)),
                        false => drop(self.relative.insert(path)),
                    }
                    at = next;
                    continue;
                }
                TokenTree::Group(group) => self.walk(group.stream(), here),
                _ => {}
            }
            at += 1;
        }
    }

    /// A tree of a `use`, below `prefix`. A re-export offers what another file has, and needs nothing of it.
    fn take_use(
        &mut self,
        tokens: &[TokenTree],
        prefix: &[String],
        here: &[String],
        is_reexport: bool,
    ) {
        let trees = tokens.split(|token| is_punct(Some(token), ','));
        // Behind the last comma there may be none.
        for tree in trees.filter(|tree| !tree.is_empty()) {
            let mut path = prefix.to_vec();
            let mut name = None;
            let mut tokens = tree.iter();
            while let Some(token) = tokens.next() {
                match token {
                    TokenTree::Ident(word) if word == "as" => {
                        name = tokens.next().map(ToString::to_string);
                    }
                    TokenTree::Ident(word) => path.push(word.to_string()),
                    TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                        let inner: Vec<_> = group.stream().into_iter().collect();
                        self.take_use(&inner, &path, here, is_reexport);
                        path.clear();
                    }
                    _ => {}
                }
            }
            if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let Some(name) = name.or_else(|| path.last().cloned()) else {
                continue;
            };
            let Some(resolved) = resolve(&path, here) else {
                self.foreign.insert(path, (name, is_reexport));
                continue;
            };
            self.imports.insert(name, resolved.clone());
            if !is_reexport {
                self.paths.insert(resolved);
            }
        }
    }
}

/// A path from the crate's root; `None` where it is another crate's.
fn resolve(path: &[String], here: &[String]) -> Option<Segments> {
    let (first, mut rest) = path.split_first()?;
    let mut base = match first.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => here.to_vec(),
        _ => return None,
    };
    if first == "super" {
        base.pop();
        while let Some(("super", further)) = rest.split_first().map(|(a, b)| (a.as_str(), b)) {
            base.pop();
            rest = further;
        }
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// The path that begins here, and the index of the first token after it.
fn take_path(tokens: &[TokenTree], mut at: usize) -> (Segments, usize) {
    let mut path = Vec::new();
    while let Some(TokenTree::Ident(word)) = tokens.get(at) {
        path.push(word.to_string());
        at += 1;
        if !is_path_sep(tokens, at) {
            break;
        }
        at += 2;
    }
    (path, at)
}

fn is_root(word: &str) -> bool {
    ["crate", "self", "super"].contains(&word)
}

fn is_path_sep(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

fn is_punct(token: Option<&TokenTree>, which: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == which)
}
