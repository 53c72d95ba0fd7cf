//! `version`.

use serde::Serialize;

use crate::failure::Failure;
use crate::output::fields::Fields;
use crate::output::{Out, Page, Show};

/// The release whose API this speaks.
const API_VERSION: &str = "3.7";

/// Prints the version of this program.
pub(crate) fn run(out: &mut Out) -> Result<(), Failure> {
    out.no_table("version")?;
    out.show(&Version)
}

struct Version;

impl Show for Version {
    fn human(&self, page: &mut Page) {
        page.line(format!("gonfalon {}", env!("CARGO_PKG_VERSION")));
        page.line(format!("speaks etcd API {API_VERSION}"));
    }

    fn simple(&self, page: &mut Page) {
        page.line(format!("gonfalon version: {}", env!("CARGO_PKG_VERSION")));
        page.line(format!("API version: {API_VERSION}"));
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        fields.quoted("Version", env!("CARGO_PKG_VERSION").as_bytes());
        fields.quoted("APIVersion", API_VERSION.as_bytes());
        fields
    }

    fn json(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Json {
            version: &'static str,
            api_version: &'static str,
        }
        Json {
            version: env!("CARGO_PKG_VERSION"),
            api_version: API_VERSION,
        }
    }
}
