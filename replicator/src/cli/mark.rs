//! `hadrian mark`: ownership marks made and shown.

use anyhow::bail;
use comfy_table::{Table, presets};
use hadrian_fencing::making::{Made, Wanted, make};
use hadrian_fencing::medium::Source;
use hadrian_fencing::show::{Shown, ShownMember, ShownResource, show};
use hadrian_protocol::marks::header::Label;
use hadrian_protocol::time::WallTime;

use super::args::{Args, Mark};
use crate::config::{Config, Marks};

pub(super) fn mark(args: &Args, what: &Mark) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let Some(marks) = config.fencing.marks() else {
        bail!(
            "the configuration has no marks; set fencing = {{ marks = [\"/dev/…\"] }}, with one or \
             three devices or files that all members reach, or fencing = {{ etcd = \
             [\"http://…\"] }}"
        );
    };
    match what {
        Mark::Format { places } => format(&config, marks, *places, args.json),
        Mark::Show => shown(&config, marks, args.json),
    }
}

fn format(config: &Config, marks: &Marks, places: u16, json: bool) -> anyhow::Result<()> {
    let label = |resource: &crate::config::Resource| Label {
        resource: resource.id,
        name: resource.name.clone(),
    };
    let made = make(&Wanted {
        cluster: config.cluster.clone(),
        members: u8::try_from(config.members.len())?,
        places,
        labels: config.resources.iter().map(label).collect(),
        set: *uuid::Uuid::new_v4().as_bytes(),
        made: now(),
        markers: sources(marks),
    })?;
    if json {
        let made = made.iter().map(|Made { place, is_new, added }| {
            serde_json::json!({ "path": place, "new": is_new, "added": added })
        });
        say!("{}", serde_json::Value::from_iter(made));
        return Ok(());
    }
    for Made { place, is_new, added } in made {
        let what = if is_new { "a marker now" } else { "a marker already" };
        let added = match added.len() {
            0 => "no resource was added".to_owned(),
            _ => format!("added: {}", added.join(", ")),
        };
        say!("{place}: {what}; {added}");
    }
    Ok(())
}

fn sources(marks: &Marks) -> Vec<Source> {
    marks.sources().into_iter().map(Source::patiently).collect()
}

fn now() -> WallTime {
    let now = jiff::Timestamp::now().as_microsecond();
    WallTime::from_micros(u64::try_from(now).unwrap_or_default())
}

fn shown(config: &Config, marks: &Marks, json: bool) -> anyhow::Result<()> {
    let mut failed = 0;
    let mut all = Vec::new();
    let sources = sources(marks);
    for source in &sources {
        match show(source, &config.cluster) {
            Ok(shown) if json => all.push(serde_json::to_value(shown)?),
            Ok(shown) => print(config, &shown),
            Err(error) => {
                failed += 1;
                if json {
                    let error = error.to_string();
                    all.push(serde_json::json!({ "path": source.to_string(), "error": error }));
                } else {
                    say!("{error}\n");
                }
            }
        }
    }
    if json {
        say!("{}", serde_json::Value::Array(all));
    }
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} markers cannot be used", sources.len()),
    }
}

fn print(config: &Config, shown: &Shown) {
    say!(
        "{}: marker {} of {}, made {}",
        shown.path,
        shown.marker + 1,
        shown.markers,
        time(shown.made_us)
    );
    let mut members = table(&["member", "state", "host", "renewed", "changed", "lease", "sees"]);
    for member in &shown.members {
        members.add_row(row_of(config, member));
    }
    say!("{members}");
    let mut resources = table(&["resource", "owner", "epoch", "in sync", "number", "under way"]);
    for resource in &shown.resources {
        resources.add_row(row_of_resource(config, resource));
    }
    say!("{resources}");
    shown.trouble.iter().for_each(|trouble| say!("trouble: {trouble}"));
    say!("");
}

fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(heads);
    table
}

fn row_of(config: &Config, member: &ShownMember) -> [String; 7] {
    let names = |bits: u8| {
        let seen = config.members.iter().filter(|known| bits >> known.id.index() & 1 == 1);
        seen.map(|known| known.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    let name = config.members.get(usize::from(member.member));
    [
        name.map_or_else(|| member.member.to_string(), |known| known.name.clone()),
        member.state.into(),
        member.host.clone(),
        time(member.wall_us),
        time(member.changed_us),
        format!("{} s", member.lease_ms as f64 / 1e3),
        names(member.sees_on_marks),
    ]
}

fn row_of_resource(config: &Config, resource: &ShownResource) -> [String; 6] {
    let under_way = resource.undecided.as_ref();
    let under_way = under_way.map_or_else(|| "-".into(), |record| format!("{}", record.number));
    let Some(record) = &resource.record else {
        let none = || "-".to_owned();
        return [resource.name.clone(), "none yet".into(), none(), none(), none(), under_way];
    };
    let in_sync: Vec<_> =
        record.in_sync.iter().map(|life| config.name_of(life.member).to_owned()).collect();
    let released = if record.release.is_some() { ", released" } else { "" };
    [
        resource.name.clone(),
        format!("{}{released}", config.name_of(record.owner.member)),
        record.epoch.to_string(),
        in_sync.join(" "),
        record.number.to_string(),
        under_way,
    ]
}

fn time(us: u64) -> String {
    if us == 0 {
        return "never".into();
    }
    let stamp = i64::try_from(us).ok().and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    stamp.map_or_else(|| us.to_string(), |stamp| stamp.strftime("%F %T UTC").to_string())
}
