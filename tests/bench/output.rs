//! What a run prints and writes, where, and that nothing in it is more than text.

use std::{fs, path::PathBuf};

use crate::{
    program::Program,
    raw::{Raw, close},
    report::Report,
    tool::{Ended, Tool, bench, echo_at},
};

/// A folder of one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidemill-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn short_run(url: &str, mode: &str, flags: &[&str]) -> Ended {
    let run = [mode, url, "--connections", "3", "--duration", "50ms"];
    Tool::start(bench(&[&run[..], flags].concat())).ended()
}

#[test]
fn without_a_flag_the_report_is_a_block_for_people() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    for (mode, lines) in [
        (
            "echo",
            &[
                "connections",
                "messages",
                "throughput",
                "latency",
                "saturated",
            ][..],
        ),
        ("hold", &["connections", "saturated"]),
        ("connect", &["connections", "latency", "saturated"]),
    ] {
        let ended = short_run(&url, mode, &[]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        // Standard error is no terminal here.
        assert_eq!(ended.log, [] as [String; 0]);
        let text = &ended.output;
        let head = format!("tidemill bench {mode} {url}\n");
        assert!(text.starts_with(&head), "{text}");
        for line in lines {
            assert!(text.contains(&format!("\n  {line} ")), "{line} in {text}");
        }
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}

#[test]
fn the_block_says_what_went_wrong() {
    let server = Program::serve(&[]);
    let url = format!("ws://{}/nowhere", server.address);
    for mode in ["echo", "hold"] {
        let ended = short_run(&url, mode, &[]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.output.contains("0 opened"), "{ended:?}");
        assert!(ended.output.contains("3 failed"), "{ended:?}");
        assert!(
            ended.output.contains("error        3 x handshake"),
            "{ended:?}"
        );
        assert!(!ended.output.contains("NaN"), "{ended:?}");
    }
}

#[test]
fn json_is_the_whole_output_or_a_file_beside_the_block() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    let ended = short_run(&url, "echo", &["--json"]);
    assert_eq!(ended.log, [] as [String; 0]);
    ended.report().expect_clean();

    let folder = Folder::new("json");
    let file = format!("--json={}", folder.file("a.json"));
    let ended = short_run(&url, "echo", &[&file]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.output.starts_with("tidemill bench echo "),
        "{ended:?}"
    );
    let text = folder.read("a.json");
    assert!(text.ends_with("}\n") && text.lines().count() == 1);
    Report::parse(&text).expect_clean();
}

#[test]
fn progress_is_a_line_a_phase_or_nothing() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    let names = |ended: &Ended| -> Vec<String> {
        let words = ended.log.iter().map(|line| line.split(' ').next());
        words.map(|word| word.unwrap().to_owned()).collect()
    };
    let probes = ["--sweep", "3", "--pings", "3"];
    let lines = ["--progress", "lines"];
    let ended = short_run(&url, "hold", &[&lines[..], &probes].concat());
    assert_eq!(names(&ended), ["ramp", "hold", "sweep", "pings", "close"]);
    assert_eq!(names(&short_run(&url, "connect", &lines)), ["churn"]);
    let ended = short_run(&url, "echo", &lines);
    assert_eq!(names(&ended), ["ramp", "exchange", "close"]);
    let ended = short_run(&url, "echo", &["--progress", "off"]);
    assert_eq!(ended.log, [] as [String; 0]);
}

#[test]
fn the_page_holds_the_report() {
    let server = Program::serve(&[]);
    let folder = Folder::new("page");
    let (page, json) = (folder.file("a.html"), folder.file("a.json"));
    let file = format!("--json={json}");
    let flags = ["--report", &page, &file];
    let ended = short_run(&echo_at(server.address), "echo", &flags);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let json = folder.read("a.json");
    let page = folder.read("a.html");
    assert!(page.contains(json.trim()), "{page}");
    assert!(!page.contains("/*REPORT*/null/*REPORT*/"));
    // One file that needs no other.
    for foreign in [
        "src=\"http",
        "href=\"http",
        "src='http",
        "@import",
        "url(http",
    ] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

/// Reasons, statuses and URLs are what others chose.
#[test]
fn nothing_that_a_server_says_ends_the_script_of_the_page() {
    const HOSTILE: &str = "</script><img src=x onerror=alert(1)><!--<script>";
    let folder = Folder::new("hostile");
    let closing = Raw::welcome(|mut guest| guest.send(close(4000, HOSTILE)));
    let refusing = Raw::serve(|mut guest| {
        let length = HOSTILE.len();
        guest.send(format!(
            "HTTP/1.1 403 {HOSTILE}\r\nContent-Length: {length}\r\n\r\n{HOSTILE}"
        ))
    });
    let choosing =
        Raw::serve(|mut guest| guest.switch(&format!("Sec-WebSocket-Protocol: {HOSTILE}\r\n")));
    for (name, server) in [("a", closing), ("b", refusing), ("c", choosing)] {
        let page = folder.file(name);
        let url = format!("{}?</script><img>", server.url());
        let ended = short_run(&url, "hold", &["--report", &page, "--json"]);
        let report = ended.report();
        assert_eq!(report.errors("<img"), 3, "{}", report.at("/errors"));
        let page = folder.read(name);
        // The page's own script is the only one, and ends once.
        assert_eq!(page.matches("</script").count(), 1, "{name}");
        assert_eq!(page.matches("<script").count(), 1, "{name}");
        assert!(!page.contains("<img") && !page.contains("<!--<"), "{name}");
    }
}

/// A run that never began has nothing to put in the place of an earlier report.
#[test]
fn a_run_that_cannot_begin_leaves_earlier_files_alone() {
    let folder = Folder::new("earlier");
    let gone = echo_at(Program::serve(&[]).address);
    fs::write(folder.file("a.html"), "earlier").unwrap();
    fs::write(folder.file("a.json"), "earlier").unwrap();
    let page = folder.file("a.html");
    let file = format!("--json={}", folder.file("a.json"));
    let ended = short_run(&gone, "hold", &["--report", &page, &file]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(folder.read("a.html"), "earlier");
    assert_eq!(folder.read("a.json"), "earlier");
}
