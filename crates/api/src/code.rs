//! Every error code, declared once. A code is the name of its page under
//! `docs/errors`: a code without a page does not compile.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A name that is not an error code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownCode(pub String);

impl fmt::Display for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an error code of this version", self.0)
    }
}

impl std::error::Error for UnknownCode {}

macro_rules! codes {
    ($($code:ident),* $(,)?) => {
        /// An error code; its page describes meaning and remedy. A code is never
        /// removed or reused: journals hold it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($code),*
        }

        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => stringify!($code)),*
                }
            }

            /// The page in Markdown, as in `docs/errors`.
            pub const fn page(self) -> &'static str {
                match self {
                    $(Self::$code => include_str!(concat!(
                        "../../../docs/errors/",
                        stringify!($code),
                        ".md"
                    ))),*
                }
            }
        }
    };
}

codes! {
    LS1001, LS1002, LS1003, LS1004, LS1005, LS1006, LS1007, LS1008, LS1010, LS1011, LS1012, LS1013,
    LS1014, LS1015, LS1020, LS1021, LS1022, LS1023, LS1024, LS1025, LS1026, LS1030, LS1031, LS1032,
    LS1033, LS1034, LS1040, LS1041, LS1042, LS1043, LS1044, LS1045, LS1046,
    LS2001, LS2002, LS2003, LS2004, LS2005, LS2007, LS2008, LS2009, LS2010, LS2011, LS2012, LS2013,
    LS2014, LS2015, LS2016, LS2017, LS2018, LS2019,
    LS2101, LS2102, LS2103, LS2104, LS2105, LS2106, LS2107, LS2108, LS2109, LS2110, LS2111, LS2112, LS2120,
    LS2121, LS2122, LS2123, LS2124, LS2125, LS2130, LS2131, LS2140, LS2141, LS2150, LS2151, LS2152,
    LS2153, LS2160, LS2161, LS2162, LS2163,
    LS2201, LS2202, LS2203, LS2204, LS2205, LS2206, LS2207, LS2208, LS2209, LS2210, LS2211, LS2212,
    LS2213, LS2214, LS2215, LS2216, LS2217, LS2220, LS2221, LS2222, LS2223, LS2224, LS2225, LS2230, LS2231, LS2240,
    LS2250, LS2251, LS2252, LS2253, LS2260, LS2261, LS2270, LS2271, LS2272, LS2273, LS2274, LS2275, LS2280,
    LS2301, LS2302, LS2303, LS2304, LS2305, LS2306, LS2307, LS2310, LS2311, LS2312, LS2313, LS2314,
    LS2315, LS2316, LS2317, LS2318, LS2319, LS2320, LS2321, LS2322, LS2323, LS2324, LS2325, LS2326,
    LS2331, LS2332, LS2333, LS2334, LS2335, LS2336, LS2337, LS2338, LS2339, LS2340, LS2341,
    LS2401, LS2402, LS2403, LS2404, LS2405, LS2406, LS2407, LS2408, LS2409, LS2410, LS2411, LS2412,
    LS2413, LS2414, LS2415, LS2416, LS2417, LS2418, LS2419, LS2420, LS2421, LS2422, LS2423, LS2424,
    LS2425, LS2426, LS2427, LS2428, LS2429, LS2430,
    LS3001, LS3002, LS3003, LS3004, LS3005, LS3006,
    LS3101, LS3102, LS3103, LS3104, LS3105, LS3106,
    LS3201, LS3202,
    LS4001, LS4002, LS4003, LS4004, LS4005,
    LS4101, LS4102, LS4103, LS4104, LS4105, LS4106, LS4107, LS4108,
    LS4201, LS4202, LS4203, LS4204, LS4205, LS4206, LS4207, LS4208, LS4209, LS4210, LS4211,
    LS4301, LS4302, LS4303, LS4304, LS4305, LS4306, LS4307, LS4308, LS4309, LS4310, LS4311, LS4312,
    LS4313, LS4314, LS4315, LS4316, LS4317,
    LS4401, LS4402, LS4403, LS4404, LS4405, LS4406, LS4407, LS4408, LS4409, LS4410,
    LS5001, LS5002, LS5003, LS5004, LS5005, LS5006, LS5007, LS5008, LS5009, LS5010, LS5011, LS5012,
    LS5013, LS5014, LS5015,
}

impl Code {
    /// The code with this name, spelled exactly as in the documentation.
    pub fn find(name: &str) -> Option<Self> {
        // Codes sort by name as they are declared; a test checks it.
        Self::ALL
            .binary_search_by(|code| code.as_str().cmp(name))
            .ok()
            .and_then(|at| Self::ALL.get(at).copied())
    }

    /// The title of the page, without the code.
    pub fn title(self) -> &'static str {
        let first = self.page().lines().next().unwrap_or_default();
        first.split_once(": ").map_or(first, |(_, title)| title)
    }

    /// The codes whose numbers are closest to that of `name`, closest first;
    /// none where `name` holds no number.
    pub fn nearest(name: &str, count: usize) -> Vec<Self> {
        let digits: String = name.chars().filter(char::is_ascii_digit).take(9).collect();
        let Ok(wanted) = digits.parse::<u32>() else {
            return Vec::new();
        };
        let mut all = Self::ALL.to_vec();
        all.sort_by_key(|code| code.number().abs_diff(wanted));
        all.truncate(count);
        all
    }

    fn number(self) -> u32 {
        self.as_str()
            .strip_prefix("LS")
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_default()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Code {
    type Err = UnknownCode;

    fn from_str(name: &str) -> Result<Self, UnknownCode> {
        Self::find(name).ok_or_else(|| UnknownCode(name.to_owned()))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_page_has_a_code() {
        let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
        let names: BTreeSet<String> = std::fs::read_dir(pages)
            .unwrap()
            .filter_map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.strip_suffix(".md").map(str::to_owned)
            })
            .filter(|name| name != "README")
            .collect();
        let codes: BTreeSet<String> = Code::ALL.iter().map(Code::to_string).collect();
        assert_eq!(codes, names);
    }

    #[test]
    fn every_page_begins_with_its_code_and_has_its_sections() {
        for code in Code::ALL {
            let page = code.page();
            assert!(
                page.starts_with(&format!("# {code}: {}\n", code.title())),
                "{code}"
            );
            assert!(!code.title().is_empty(), "{code}");
            for section in ["\n## Example\n", "\n## Remedy\n"] {
                assert!(page.contains(section), "{code} lacks {section:?}");
            }
        }
    }

    #[test]
    fn a_code_is_found_by_its_name_only() {
        for code in Code::ALL {
            assert_eq!(Code::find(code.as_str()), Some(*code));
        }
        assert!(Code::ALL.is_sorted_by_key(|code| code.as_str()));
        for name in ["", "LS0000", "ls2012", "LS20120", "2012"] {
            assert_eq!(Code::find(name), None, "{name}");
        }
    }

    #[test]
    fn the_nearest_codes_are_named() {
        assert_eq!(
            Code::nearest("LS2006", 2),
            [Code::LS2005, Code::LS2007],
            "LS2006 is not in use"
        );
        assert!(Code::nearest("help", 2).is_empty());
    }

    #[test]
    fn a_code_survives_serialization_and_an_unknown_one_is_an_error() {
        let json = serde_json::to_string(&Code::LS2012).unwrap();
        assert_eq!(json, "\"LS2012\"");
        assert_eq!(serde_json::from_str::<Code>(&json).unwrap(), Code::LS2012);
        let error = serde_json::from_str::<Code>("\"LS0000\"").unwrap_err();
        assert!(error.to_string().contains("LS0000"), "{error}");
    }
}
