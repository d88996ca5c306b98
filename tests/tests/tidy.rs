//! Style as a test: what every source file of this repository keeps to, and that each rule notices who does not.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use swarmdisk_tests::skip::{Missing, need};

/// Lines of a file and of a function that can be read at one sitting; aim for 600 and 70.
const FILE_LINES: usize = 700;
const FUNCTION_LINES: usize = 100;

#[test]
fn every_file_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let Some(files) = need(tracked(root)) else { return };
    let mut complaints = Vec::new();
    for path in &files {
        // Neither text nor a file of this work tree: nothing to say about it.
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        complaints.extend(check(path, &text));
    }
    assert!(files.iter().any(|path| path.ends_with("tidy.rs")), "the files are not this repository's: {files:?}");
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn tracked(root: &Path) -> Result<Vec<PathBuf>, Missing> {
    let output = Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).output();
    match output {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(names.split_terminator('\0').map(PathBuf::from).collect())
        }
        _ => Err(Missing { what: "no list of the tracked files".into(), remedy: "run it with git in a clone".into() }),
    }
}

/// What is wrong with a file, as `path:line: complaint`.
fn check(path: &Path, text: &str) -> Vec<String> {
    let mut found = machine_paths(text);
    if is_script(path, text) {
        found.extend(addresses(text));
    }
    if path.extension().is_some_and(|extension| extension == "rs") {
        found.extend(module_docs(text));
        found.extend(lengths(text));
        found.extend(leftovers(text));
        if path.starts_with("core/src") {
            found.extend(foreign_to_core(text));
        }
    }
    found.sort();
    found.into_iter().map(|(line, complaint)| format!("{}:{line}: {complaint}", path.display())).collect()
}

/// A line's number, from 1, and what is wrong there.
type Complaint = (usize, String);

fn module_docs(text: &str) -> Vec<Complaint> {
    if text.trim_start().starts_with("//!") { vec![] } else { vec![(1, "does not open with //!".to_owned())] }
}

fn lengths(text: &str) -> Vec<Complaint> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES {
        found.push((1, format!("{lines} lines, more than {FILE_LINES}")));
    }
    for (name, span) in functions(&code_of(text)) {
        let lines = text[span.clone()].lines().count();
        if lines > FUNCTION_LINES {
            found.push((line_at(text, span.start), format!("fn {name}: {lines} lines, more than {FUNCTION_LINES}")));
        }
    }
    found
}

fn leftovers(text: &str) -> Vec<Complaint> {
    let code = code_of(text);
    let mut found = Vec::new();
    for word in ["todo!", "unimplemented!", "dbg!"] {
        found.extend(words(&code, word).map(|at| (line_at(text, at), format!("leftover {word}"))));
    }
    found.extend(words(&code, "#[ignore]").map(|at| (line_at(text, at), "#[ignore] without a reason".to_owned())));
    found
}

fn foreign_to_core(text: &str) -> Vec<Complaint> {
    let mut code = code_of(text);
    for span in test_items(&code) {
        blank(&mut code, span);
    }
    let mut found = Vec::new();
    for word in ["std::", "alloc::", "unsafe"] {
        found.extend(words(&code, word).map(|at| (line_at(text, at), format!("{word} in core"))));
    }
    found
}

fn machine_paths(text: &str) -> Vec<Complaint> {
    let mut found = Vec::new();
    for folder in ["work", "root", "home"].map(|name| format!("/{name}/")) {
        for (at, _) in text.match_indices(&folder) {
            let before = text[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || "_-.}~".contains(c)) {
                found.push((line_at(text, at), format!("a path of one machine: {folder}")));
            }
        }
    }
    found
}

fn is_script(path: &Path, text: &str) -> bool {
    text.starts_with("#!") && !text.starts_with("#![") || path.extension().is_some_and(|extension| extension == "sh")
}

/// Where packages come from is the machine's own business; a script asks its settings.
fn addresses(text: &str) -> Vec<Complaint> {
    let mut found = Vec::new();
    for scheme in ["http://", "https://"] {
        for (at, _) in text.match_indices(scheme) {
            let host = &text[at + scheme.len()..];
            if !["127.0.0.1", "localhost", "[::1]"].iter().any(|local| host.starts_with(local)) {
                found.push((line_at(text, at), format!("an address in a script: {scheme}")));
            }
        }
    }
    found
}

fn line_at(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Where `word` stands, not as the end of a longer name, nor, when it ends in a letter, as the start of one.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let joined_before = word.starts_with(is_name) && code[..at].ends_with(is_name);
        let joined_after = word.ends_with(is_name) && code[at + word.len()..].starts_with(is_name);
        !joined_before && !joined_after
    })
}

/// Each function with a body: its name, and the bytes from `fn` to its closing brace.
fn functions(code: &str) -> Vec<(&str, Range<usize>)> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let name = code[at + 2..].trim_start();
        let name = &name[..name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len())];
        match end_of_item(code, at) {
            Some(end) if !name.is_empty() && code[..end].ends_with('}') => found.push((name, at..end)),
            _ => {}
        }
    }
    found
}

/// Each item that is compiled for tests alone, from its attribute to its end.
fn test_items(code: &str) -> Vec<Range<usize>> {
    code.match_indices("#[cfg(test)]").filter_map(|(at, _)| Some(at..end_of_item(code, at)?)).collect()
}

/// The end of the item that starts at `from`: its body's closing brace, or the semicolon of one without a body.
fn end_of_item(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            b';' => {}
            _ => continue,
        }
        if depth == 0 && matches!(byte, b';' | b'}') {
            return Some(at + 1);
        }
    }
    None
}

/// The text with comments, strings and characters blanked, byte for byte, so that what is left is code.
fn code_of(text: &str) -> String {
    let mut code = text.to_owned();
    let mut at = 0;
    while at < text.len() {
        let end = at + quoted_length(text, at);
        if end == at {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        } else {
            blank(&mut code, at..end);
            at = end;
        }
    }
    code
}

fn blank(code: &mut String, span: Range<usize>) {
    let blanks: String = code[span.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
    code.replace_range(span, &blanks);
}

/// How many bytes from `at` on are one comment, string or character; 0 for code.
fn quoted_length(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let in_name = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    if let Some(hashes) = raw_string_hashes(rest).filter(|_| !in_name || text[..at].ends_with('b')) {
        let close = format!("\"{}", "#".repeat(hashes));
        let open = 2 + hashes;
        return rest[open..].find(&close).map_or(rest.len(), |inner| open + inner + close.len());
    }
    match rest.as_bytes()[0] {
        b'"' => escaped_length(rest, '"').unwrap_or(rest.len()),
        b'\'' => character_length(rest),
        _ => 0,
    }
}

fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let step = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => 1,
            [b'*', b'/', ..] => -1,
            _ => 0,
        };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
        if depth == 0 {
            break;
        }
    }
    at
}

/// For `r"` 0, for `r#"` 1, and so on.
fn raw_string_hashes(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.bytes().take_while(|&byte| byte == b'#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// The length up to and with the closing quote; a backslash takes the next character's meaning.
fn escaped_length(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// 0 for a lifetime.
fn character_length(rest: &str) -> usize {
    let mut inner = rest[1..].chars();
    match (inner.next(), inner.next()) {
        (Some('\\'), _) => escaped_length(rest, '\'').unwrap_or(0),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

/// The complaints about a file of this name and text.
fn complaints(path: &str, text: &str) -> Vec<String> {
    check(Path::new(path), text)
}

#[test]
fn a_module_without_docs_is_noticed() {
    assert_eq!(complaints("a.rs", "//! Docs.\n\nuse a;\n"), [""; 0]);
    assert_eq!(complaints("a.rs", "use a;\n//! Docs.\n"), ["a.rs:1: does not open with //!"]);
}

#[test]
fn long_files_and_functions_are_noticed() {
    let body = |lines: usize| format!("//! Docs.\nfn f(a: [u8; 2]) {{\n{}}}\n", "    a();\n".repeat(lines));
    assert_eq!(complaints("a.rs", &body(FUNCTION_LINES - 2)), [""; 0]);
    assert_eq!(complaints("a.rs", &body(FUNCTION_LINES - 1)), ["a.rs:2: fn f: 101 lines, more than 100"]);
    let long = format!("//! Docs.\n{}", "use a;\n".repeat(FILE_LINES));
    assert_eq!(complaints("a.rs", &long), ["a.rs:1: 701 lines, more than 700"]);
}

#[test]
fn braces_in_strings_and_comments_end_no_function() {
    let text = "fn f<'a>(x: &'a str) { '{'; '\\''; \"}\\\"}\"; r#\"}\"}\"#; b'}'; /* } /* } */ } */ // }\n}\nfn g() {}";
    let spans: Vec<_> = functions(&code_of(text)).into_iter().map(|(name, span)| (name.to_owned(), span)).collect();
    assert_eq!(
        spans,
        [("f".to_owned(), 0..text.find("fn g").unwrap() - 1), ("g".to_owned(), text.len() - 9..text.len())]
    );
}

#[test]
fn a_trait_s_function_without_a_body_is_no_function() {
    let code = "trait T { fn a(&self) -> [u8; 2]; fn b(&self) {} } type F = fn(u8);";
    assert_eq!(functions(code).into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn leftovers_are_noticed() {
    for word in ["todo!", "unimplemented!", "dbg!"] {
        assert_eq!(complaints("a.rs", &format!("//!\nfn f() {{ {word}() }}\n")), [format!("a.rs:2: leftover {word}")]);
        assert_eq!(complaints("a.rs", &format!("//!\n// {word}\nfn f() {{ my_{word}(); \"{word}\"; }}\n")), [""; 0]);
    }
    assert_eq!(complaints("a.rs", "//!\n#[ignore]\nfn f() {}\n"), ["a.rs:2: #[ignore] without a reason"]);
    assert_eq!(complaints("a.rs", "//!\n#[ignore = \"needs a device\"]\nfn f() {}\n"), [""; 0]);
}

#[test]
fn core_has_no_std_no_alloc_and_nothing_unsafe() {
    for (line, word) in [("use std::mem;", "std::"), ("use alloc::vec;", "alloc::"), ("unsafe { f() }", "unsafe")] {
        let text = format!("//! std:: alloc:: unsafe\n#![forbid(unsafe_code)]\n{line}\n");
        assert_eq!(complaints("core/src/a.rs", &text), [format!("core/src/a.rs:3: {word} in core")]);
        assert_eq!(complaints("host/src/a.rs", &text), [""; 0]);
        let test = format!("//!\n#[cfg(test)]\nmod tests {{\n{line}\n}}\n");
        assert_eq!(complaints("core/src/a.rs", &test), [""; 0]);
        assert_eq!(complaints("core/src/a.rs", &format!("{test}{line}\n")).len(), 1);
    }
}

#[test]
fn paths_of_one_machine_and_addresses_in_scripts_are_noticed() {
    let path = ["", "work", "x"].join("/");
    assert_eq!(complaints("a.md", &format!("see\n{path}\n")).len(), 1);
    assert_eq!(complaints("a.md", &format!("$DIR{path} network/work/x ~/work/x\n")), [""; 0]);

    let script = "#!/bin/sh\ncurl http://localhost:80\n";
    assert_eq!(complaints("a", script), [""; 0]);
    assert_eq!(complaints("a", &script.replace("localhost", "example.org")), ["a:2: an address in a script: http://"]);
    assert_eq!(complaints("a.md", "https://example.org\n"), [""; 0]);
}
