//! Writes a target as an adapter file, so that a case can hold it: what is read from that is the same target.

use toml::{Table, Value};

use crate::target::{Command, Extract, Target};

impl Target {
    /// Returns the target as the text of an adapter file. Its folder is not part of it.
    pub fn to_adapter(&self) -> String {
        let mut root = Table::new();
        root.insert("name".into(), Value::from(self.name.as_str()));
        if let Some(cwd) = &self.cwd {
            root.insert("cwd".into(), Value::from(cwd.to_string()));
        }
        let data = &self.data;
        let mut section = Table::new();
        section.insert("path".into(), Value::from(data.path.display().to_string()));
        section.insert("format".into(), Value::from(data.format.to_string()));
        if let Some(records) = &data.records {
            section.insert("records".into(), extract(records));
        }
        section.insert("listed".into(), extract(&data.listed));
        if !data.also.is_empty() {
            section.insert("also".into(), strings(&data.also));
        }
        root.insert("data".into(), section.into());
        root.insert("ops".into(), self.ops_table().into());
        let statuses = |all: &[i32]| Value::from(all.iter().map(|one| i64::from(*one)).collect::<Vec<_>>());
        let mut exit = Table::new();
        exit.insert("refused".into(), statuses(&self.exit.refused));
        exit.insert("busy".into(), statuses(&self.exit.busy));
        root.insert("exit".into(), exit.into());
        if let Some(guard) = &self.guard {
            let mut section = Table::new();
            section.insert("limit".into(), Value::from(guard.limit));
            section.extend(guard.add.as_ref().map(|add| ("add".to_owned(), command(add))));
            root.insert("guard".into(), section.into());
        }
        if let Some(derived) = &self.derived {
            let mut section = Table::new();
            section.insert("files".into(), strings(&derived.files));
            section.insert("rebuild".into(), command(&derived.rebuild));
            root.insert("derived".into(), section.into());
        }
        if let Some(session) = &self.session {
            let mut section = Table::new();
            section.insert("command".into(), command(&session.command));
            section.insert("removes".into(), strings(&session.removes));
            root.insert("session".into(), section.into());
        }
        let limits = &self.limits;
        let mut section = Table::new();
        section.insert("timeout".into(), Value::from(humantime::format_duration(limits.timeout).to_string()));
        section.insert("output".into(), Value::from(format!("{}B", limits.output)));
        section.insert("file".into(), Value::from(format!("{}B", limits.file)));
        section.insert("processes".into(), Value::from(limits.processes));
        root.insert("limits".into(), section.into());
        if !self.env.is_empty() {
            let env = self.env.iter().map(|(key, value)| (key.clone(), Value::from(value.to_string())));
            root.insert("env".into(), env.collect::<Table>().into());
        }
        root.to_string()
    }

    fn ops_table(&self) -> Table {
        let ops = &self.ops;
        let single = [
            ("init", ops.init.as_ref()),
            ("add", Some(&ops.add)),
            ("list", ops.list.as_ref()),
            ("recover", ops.recover.as_ref()),
        ];
        let mut section: Table =
            single.into_iter().filter_map(|(name, op)| Some((name.to_owned(), command(op?)))).collect();
        if !ops.other.is_empty() {
            let other: Table = ops.other.iter().map(|(name, op)| (name.clone(), command(op))).collect();
            section.insert("other".into(), other.into());
        }
        section
    }
}

fn command(command: &Command) -> Value {
    strings(&command.source())
}

fn strings(all: &[String]) -> Value {
    Value::from(all.to_vec())
}

fn extract(extract: &Extract) -> Value {
    let table = |key: &str, value: &str| {
        Value::from(std::iter::once((key.to_owned(), Value::from(value))).collect::<Table>())
    };
    match extract {
        Extract::JsonPath(path, _) => Value::from(path.as_str()),
        Extract::Keys(path, _) => table("keys", path),
        Extract::Regex(pattern) => table("regex", pattern.as_str()),
        Extract::Lines => Value::from("lines"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::target::{Target, adapter, flags::Flags};

    /// Every entry of an adapter survives being written and read.
    #[test]
    fn what_is_written_is_read_as_the_same_target() {
        let text = "name = \"n\"\ncwd = \"{dir}\"\n[data]\npath = \"a/db.txt\"\nrecords = { regex = 'r=(\\S+)' }\n\
                    listed = { keys = '$.rec' }\nalso = [\"s/*.json\"]\n[ops]\ninit = [\"true\", \"{data}\"]\n\
                    add = [\"true\", \"{{x}}\", \"{id}\"]\nlist = [\"true\"]\nrecover = [\"true\"]\n\
                    [ops.other]\nrotate = [\"true\", \"a b\"]\n[exit]\nrefused = [3]\nbusy = [75, 1]\n\
                    [guard]\nlimit = 3\nadd = [\"true\"]\n[derived]\nfiles = [\"p\"]\nrebuild = [\"true\"]\n\
                    [session]\ncommand = [\"true\"]\nremoves = [\"rotate\"]\n[limits]\ntimeout = \"1s 500ms\"\n\
                    output = \"3KiB\"\nprocesses = 7\n[env]\nKEY = \"{dir}/v\"\n";
        let first = adapter::parse(text, "first", Path::new("/")).unwrap();
        let again = adapter::parse(&first.to_adapter(), "again", Path::new("/")).unwrap();
        assert_eq!(first.to_adapter(), again.to_adapter());
        assert_eq!(again.commands(), first.commands());
        assert_eq!((again.limits, &again.exit, &again.guard), (first.limits, &first.exit, &first.guard));
        assert_eq!(again.name, "n");
    }

    #[test]
    fn the_embedded_store_and_flags_are_written_too() {
        let flags = Flags { add: Some("true {data} {id}".into()), ..Flags::default() };
        for target in [Target::embedded(Path::new("/")), flags.into_target(Path::new("/")).unwrap()] {
            let again = adapter::parse(&target.to_adapter(), "again", Path::new("/")).unwrap();
            assert_eq!(again.commands(), target.commands());
            assert_eq!(again.to_adapter(), target.to_adapter());
        }
    }
}
