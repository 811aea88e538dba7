//! Man pages and shell completions of `runc` and `cni`, from their command lines. In: a folder. Out: in it `man8/NAME.8`, one
//! for each verb too, and `completions/` for bash, zsh and fish. Must never: say what the programs' own `--help` does not.
//!
//! Run: `cargo xtask manual`, or `cargo run -p runtime --example manual -- DIR`

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

fn main() -> std::io::Result<()> {
    let Some(out) = std::env::args_os().nth(1) else {
        eprintln!("usage: manual DIR");
        std::process::exit(2)
    };
    let out = Path::new(&out);
    let (pages, completions) = (out.join("man8"), out.join("completions"));
    std::fs::create_dir_all(&pages)?;
    std::fs::create_dir_all(&completions)?;
    for command in [oci::cli::command(), cni::cli::Cli::command()] {
        let name = command.get_name().to_string();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut command.clone(), &name, &completions)?;
        }
        // The headings of runc's help are for its callers; a man page has its own.
        let command = command.help_template("").disable_help_subcommand(true);
        clap_mangen::generate_to(command, &pages)?;
    }
    for file in std::fs::read_dir(&pages)? {
        let path = file?.path();
        // Commands of a machine's administrator are in section 8 (man-pages(7)).
        if path.extension().is_some_and(|section| section == "1") {
            let text = std::fs::read_to_string(&path)?;
            let text = text.replacen(" 1 ", " 8 ", 1).replace("(1)", "(8)");
            std::fs::write(path.with_extension("8"), text)?;
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}
