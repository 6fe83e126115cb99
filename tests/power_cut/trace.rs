//! What `strace -f -yy -xx` wrote, as calls in the order in which they began and ended.
//!
//! *Invariant:* nothing is guessed. A line that names a call which we asked for and which cannot be read
//! is an error; a replay of half a trace would prove nothing.

use std::collections::HashMap;

/// The system calls that are recorded: all by which a Linux program of ours changes a file or a folder,
/// moves a file's position, makes either durable, or talks over a socket. The last row are ways past
/// this recorder: they are watched only so that the replay can refuse them.
pub const RECORDED: &str = "execve,open,openat,openat2,creat,close,dup,dup2,dup3,fcntl,lseek,\
    read,readv,recvfrom,recvmsg,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,\
    ftruncate,truncate,fallocate,fsync,fdatasync,sync,syncfs,sync_file_range,\
    rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,\
    mmap,io_uring_setup,copy_file_range,sendfile,splice,symlink,symlinkat";

/// One system call.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: String,
    /// Its arguments as strace wrote them, split at the outer commas.
    pub args: Vec<String>,
    /// `None` if it never came back.
    pub returned: Option<i64>,
    /// What stood behind the returned number, such as the path of a new descriptor.
    pub returned_text: String,
}

/// A moment in the trace: a call was entered or left.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// Index into [`Trace::calls`].
    Entered(usize),
    /// Index into [`Trace::calls`].
    Left(usize),
}

/// A whole recording.
#[derive(Debug, Default)]
pub struct Trace {
    pub calls: Vec<Call>,
    pub moments: Vec<Moment>,
}

impl Trace {
    /// Reads strace's output.
    pub fn parse(text: &str) -> Result<Trace, String> {
        let mut trace = Trace::default();
        let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let fail = |why: &str| format!("line {}: {why}: {:.200}", number + 1, line);
            let (pid, rest) = line.split_once(' ').ok_or_else(|| fail("no process id"))?;
            let rest = rest.trim_start();
            if rest.starts_with("+++") || rest.starts_with("---") {
                continue;
            }
            if let Some(resumed) = rest.strip_prefix("<... ") {
                let (_, tail) = resumed
                    .split_once(" resumed>")
                    .ok_or_else(|| fail("resumed what?"))?;
                let Some((index, head)) = unfinished.remove(pid) else {
                    return Err(fail("resumed, but never begun"));
                };
                trace.calls[index] = read_call(&format!("{head}{tail}")).map_err(|e| fail(&e))?;
                trace.moments.push(Moment::Left(index));
            } else if let Some(head) = rest.strip_suffix(" <unfinished ...>") {
                let call = read_begun(head).map_err(|e| fail(&e))?;
                unfinished.insert(pid, (trace.calls.len(), head.to_owned()));
                trace.moments.push(Moment::Entered(trace.calls.len()));
                trace.calls.push(call);
            } else {
                let call = read_call(rest).map_err(|e| fail(&e))?;
                trace.moments.push(Moment::Entered(trace.calls.len()));
                trace.moments.push(Moment::Left(trace.calls.len()));
                trace.calls.push(call);
            }
        }
        Ok(trace)
    }
}

/// `name(args…` of a call that had not come back when another thread got the word. Its arguments are read
/// again when it is resumed; until then (and for ever, if the program is killed in it) they count as they
/// stand.
fn read_begun(text: &str) -> Result<Call, String> {
    let (name, args) = text.split_once('(').ok_or("no call")?;
    Ok(Call {
        name: name.to_owned(),
        args: split_arguments(args.trim_end().trim_end_matches(',')),
        returned: None,
        returned_text: String::new(),
    })
}

/// `name(args) = value text`.
fn read_call(text: &str) -> Result<Call, String> {
    let (name, rest) = text.split_once('(').ok_or("no call")?;
    // Strings are in hex, so that the last ` = ` can only be the result's.
    let (args, result) = rest.rsplit_once(" = ").ok_or("no result")?;
    let args = args.trim_end().strip_suffix(')').ok_or("no end")?;
    let result = result.trim();
    let digits = result
        .find(|c: char| !(c.is_ascii_hexdigit() || "-x".contains(c)))
        .unwrap_or(result.len());
    let value = match result[..digits].strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(u64::cast_signed),
        None => result[..digits].parse().ok(),
    };
    if value.is_none() && !result.starts_with('?') {
        return Err(format!("result {result:?}"));
    }
    Ok(Call {
        name: name.to_owned(),
        args: split_arguments(args),
        returned: value,
        returned_text: result[digits..].trim().to_owned(),
    })
}

/// Splits at commas outside quotes and brackets.
fn split_arguments(text: &str) -> Vec<String> {
    let mut args = Vec::new();
    let (mut depth, mut quoted, mut start) = (0_usize, false, 0);
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            // `->` stands in the names of sockets.
            '>' if before == '-' => {}
            '[' | '{' | '<' | '(' => depth += 1,
            ']' | '}' | '>' | ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                args.push(text[start..at].trim().to_owned());
                start = at + 1;
            }
            _ => {}
        }
        before = c;
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        args.push(last.to_owned());
    }
    args
}

/// A descriptor argument: its number, and what it is open on.
pub fn descriptor(arg: &str) -> Option<(i32, String)> {
    let (number, rest) = match arg.split_once('<') {
        Some((number, rest)) => (number, rest),
        None => (arg, ""),
    };
    let name = rest.rsplit_once('>').map_or("", |(name, _)| name);
    let number = match number {
        "AT_FDCWD" => -100,
        other => other.parse().ok()?,
    };
    Some((
        number,
        String::from_utf8_lossy(&unescape(name)).into_owned(),
    ))
}

/// The bytes of every quoted string in an argument, one after the other: one for a buffer, several for a
/// vector of buffers.
pub fn bytes(arg: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for (index, part) in arg.split('"').enumerate() {
        if index % 2 == 1 {
            all.extend(unescape(part));
        }
    }
    all
}

/// `\xNN` to bytes; anything else stands for itself.
fn unescape(text: &str) -> Vec<u8> {
    let raw = text.as_bytes();
    let mut out = Vec::with_capacity(raw.len() / 4);
    let mut at = 0;
    while at < raw.len() {
        let escaped = (raw[at..].starts_with(b"\\x"))
            .then(|| text.get(at + 2..at + 4))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(raw[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_two_threads_are_put_together_again() {
        let trace = Trace::parse(
            "7  pwrite64(3</x>, \"\\x61\\x2c\", 2, 5 <unfinished ...>\n\
             8  sendto(9<TCP:[127.0.0.1:5->127.0.0.1:6]>, \"\\x40\\x02\\x00\\x01\", 4, 0, NULL, 0) = 4\n\
             7  <... pwrite64 resumed>)             = 2\n\
             8  openat(AT_FDCWD</y>, \"\\x7a\", O_RDWR|O_CREAT, 0644) = 4<\\x2f\\x7a>\n\
             8  mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, -1, 0) = 0x7f67fc29a000\n\
             8  fsync(4</z>) = -1 EIO (Input/output error)\n\
             8  +++ exited with 0 +++\n",
        )
        .unwrap();
        assert!(matches!(
            trace.moments[..4],
            [
                Moment::Entered(0),
                Moment::Entered(1),
                Moment::Left(1),
                Moment::Left(0)
            ]
        ));
        assert_eq!(trace.calls[0].args.len(), 4);
        assert_eq!(bytes(&trace.calls[0].args[1]), b"a,");
        assert_eq!(trace.calls[0].returned, Some(2));
        assert_eq!(
            descriptor(&trace.calls[1].args[0]),
            Some((9, "TCP:[127.0.0.1:5->127.0.0.1:6]".into()))
        );
        assert_eq!(
            descriptor(&format!("4{}", trace.calls[2].returned_text)),
            Some((4, "/z".into()))
        );
        assert_eq!(trace.calls[4].returned, Some(-1));
    }

    #[test]
    fn vectors_of_buffers_are_joined() {
        let trace = Trace::parse(
            "1 pwritev2(3</a>, [{iov_base=\"\\x61\", iov_len=1}, {iov_base=\"\\x62\\x63\", iov_len=2}], 2, 5, RWF_DSYNC) = 3\n",
        )
        .unwrap();
        assert_eq!(bytes(&trace.calls[0].args[1]), b"abc");
        assert_eq!(trace.calls[0].args[4], "RWF_DSYNC");
    }

    #[test]
    fn a_torn_line_is_refused() {
        let error = Trace::parse("1 write(3</a>, \"\\x61\n").unwrap_err();
        assert!(error.starts_with("line 1:"), "{error}");
    }
}
