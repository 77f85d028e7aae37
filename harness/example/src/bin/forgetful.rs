//! The same without the lock, and written anew each time: what most programs do, and what picklock is there to find.

use std::env;
use std::fs;
use std::io;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["add", file, note] => {
            let notes = fs::read_to_string(file).unwrap_or_default();
            fs::write(file, format!("{notes}{note}\n"))
        }
        ["list", file] => {
            print!("{}", fs::read_to_string(file)?);
            Ok(())
        }
        _ => Err(io::Error::other("usage: forgetful add FILE NOTE | forgetful list FILE")),
    }
}
