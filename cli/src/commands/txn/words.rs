//! A line split into words, with quotes.

/// Splits at spaces. Between `"` the escapes of Go count, between `'` and between backquotes nothing
/// does.
pub(super) fn split(line: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// The first word, which may have several quoted parts, and what is behind it.
fn word(mut rest: &str) -> Result<(Vec<u8>, &str), String> {
    let mut word = Vec::new();
    while let Some(first) = rest.chars().next().filter(|c| !c.is_whitespace()) {
        if matches!(first, '"' | '\'' | '`') {
            let (part, after) = quoted(rest)?;
            word.extend(part);
            rest = after;
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'));
            let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
            word.extend_from_slice(part.as_bytes());
            rest = after;
        }
    }
    Ok((word, rest))
}

/// What stands between the quotes that `text` begins with, and what is behind them.
pub(super) fn quoted(text: &str) -> Result<(Vec<u8>, &str), String> {
    let mut chars = text.chars();
    let quote = chars
        .next()
        .filter(|c| matches!(c, '"' | '\'' | '`'))
        .ok_or("a quote is missing")?;
    let mut out = Vec::new();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok((out, chars.as_str())),
            '\\' if quote == '"' => {
                let (bytes, after) = escape(chars.as_str())?;
                out.extend(bytes);
                chars = after.chars();
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err(format!("the {quote} is not closed"))
}

/// What is behind a backslash in Go, as bytes, and the rest.
fn escape(text: &str) -> Result<(Vec<u8>, &str), String> {
    let bad = || "the escape is none that Go knows".to_owned();
    let first = text.chars().next().ok_or_else(bad)?;
    let rest = &text[first.len_utf8()..];
    let byte = match first {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '"' | '\'' => first as u8,
        'x' => number(rest, 2, 16)
            .and_then(|n| u8::try_from(n).ok())
            .ok_or_else(bad)?,
        '0'..='7' => number(text, 3, 8)
            .and_then(|n| u8::try_from(n).ok())
            .ok_or_else(bad)?,
        'u' | 'U' => {
            let digits = if first == 'u' { 4 } else { 8 };
            let c = number(rest, digits, 16)
                .and_then(char::from_u32)
                .ok_or_else(bad)?;
            return Ok((c.to_string().into_bytes(), &rest[digits..]));
        }
        _ => return Err(bad()),
    };
    let after = match first {
        'x' => &rest[2..],
        '0'..='7' => &text[3..],
        _ => rest,
    };
    Ok((vec![byte], after))
}

fn number(text: &str, digits: usize, radix: u32) -> Option<u32> {
    let text = text.get(..digits)?;
    // `from_str_radix` takes a sign; an escape has none.
    text.chars()
        .all(|c| c.is_digit(radix))
        .then(|| u32::from_str_radix(text, radix).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_may_be_quoted() {
        let cases: [(&str, &[&[u8]]); 6] = [
            ("put a b", &[b"put", b"a", b"b"]),
            ("  put\ta  \"b c\" ", &[b"put", b"a", b"b c"]),
            (
                "put 'it is \"so\"' `\\n`",
                &[b"put", b"it is \"so\"", b"\\n"],
            ),
            ("put a=\"b c\"d", &[b"put", b"a=b cd"]),
            (
                r#""\n\t\\\"\x00\377\u00e9""#,
                &[b"\n\t\\\"\x00\xff\xc3\xa9"],
            ),
            ("\"\"", &[b""]),
        ];
        for (line, want) in cases {
            assert_eq!(split(line).unwrap(), want, "{line}");
        }
    }

    #[test]
    fn quotes_and_escapes_must_be_complete() {
        for line in [
            "\"a",
            "'a",
            "\"\\",
            "\"\\x1\"",
            "\"\\q\"",
            "\"\\+12\"",
            "\"\\x+1\"",
            "\"\\777\"",
        ] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
