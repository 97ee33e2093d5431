//! The machine code of the routines, without running it: also of those that this processor does
//! not choose.

use std::collections::BTreeMap;
use std::path::Path;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::count::{Kind, kind};

/// Every function of the program, by symbol.
struct Functions(BTreeMap<String, Vec<Instruction>>);

impl Functions {
    fn of(program: &Path) -> Self {
        let file = std::fs::read(program).expect("the program can be read");
        let object = object::File::parse(&*file).expect("it is an ELF file");
        let mut functions = BTreeMap::new();
        for symbol in object.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
            let section = symbol.section_index().and_then(|at| object.section_by_index(at).ok());
            let (Some(section), Ok(name)) = (section, symbol.name()) else { continue };
            let data = section.data_range(symbol.address(), symbol.size());
            let Ok(Some(code)) = data else { continue };
            let decoder = Decoder::with_ip(64, code, symbol.address(), DecoderOptions::NONE);
            functions.insert(name.to_owned(), decoder.into_iter().collect());
        }
        Self(functions)
    }

    /// The routine of this name in the library, up to the filler after it.
    fn routine(&self, name: &str) -> Vec<Instruction> {
        let found: Vec<_> =
            self.0.iter().filter(|(symbol, _)| routine_of(symbol) == Some(name)).collect();
        let [(_, code)] = found.as_slice() else {
            panic!("{name}: {} symbols", found.len());
        };
        code.iter().take_while(|i| i.mnemonic() != Mnemonic::Int3).copied().collect()
    }
}

/// Stores through a pointer to the destination, `rdi`.
fn stores_to_destination(instruction: &Instruction) -> bool {
    let named = instruction.memory_base() == Register::RDI;
    let stores = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory;
    // CMP and TEST name memory first and only read it.
    named && stores && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test)
}

fn of_kind(code: &[Instruction], wanted: Kind) -> Vec<Mnemonic> {
    code.iter().filter(|i| kind(i) == wanted).map(Instruction::mnemonic).collect()
}

/// Write whole lines back, and nothing else.
const WRITE_BACKS: [(&str, Mnemonic); 3] = [
    ("write_back_clwb", Mnemonic::Clwb),
    ("write_back_clflushopt", Mnemonic::Clflushopt),
    ("write_back_clflush", Mnemonic::Clflush),
];

/// Copy by way of the caches, and write back what they copied.
const STORES_WRITTEN_BACK: [(&str, Mnemonic); 9] = [
    ("store_clwb_sse2", Mnemonic::Clwb),
    ("store_clflushopt_sse2", Mnemonic::Clflushopt),
    ("store_clflush_sse2", Mnemonic::Clflush),
    ("store_clwb_avx", Mnemonic::Clwb),
    ("store_clflushopt_avx", Mnemonic::Clflushopt),
    ("store_clflush_avx", Mnemonic::Clflush),
    ("store_clwb_avx512", Mnemonic::Clwb),
    ("store_clflushopt_avx512", Mnemonic::Clflushopt),
    ("store_clflush_avx512", Mnemonic::Clflush),
];

/// Copy or fill past the caches.
const NON_TEMPORAL: [&str; 10] = [
    "non_temporal_sse2",
    "non_temporal_avx",
    "non_temporal_avx512",
    "non_temporal_direct",
    "non_temporal_down_sse2",
    "non_temporal_down_avx",
    "non_temporal_down_avx512",
    "non_temporal_fill_sse2",
    "non_temporal_fill_avx",
    "non_temporal_fill_avx512",
];

/// Copy or fill by way of the caches, which others write back.
const CACHED: [&str; 12] = [
    "store_sse2",
    "store_avx",
    "store_avx512",
    "load_sse2",
    "load_avx",
    "load_avx512",
    "store_down_sse2",
    "store_down_avx",
    "store_down_avx512",
    "fill_sse2",
    "fill_avx",
    "fill_avx512",
];

/// Every routine, by name.
pub fn routines() -> impl Iterator<Item = &'static str> {
    let with_write_backs = WRITE_BACKS.iter().chain(&STORES_WRITTEN_BACK).map(|(name, _)| *name);
    with_write_backs.chain(NON_TEMPORAL).chain(CACHED).chain(["compare_exchange"])
}

/// The routine that a symbol is: its name stands behind `daxmap_` and the version of the library.
fn routine_of(symbol: &str) -> Option<&str> {
    Some(symbol.strip_prefix("daxmap_")?.split_once('_')?.1)
}

/// Whether `routines` has every one that the program contains.
pub fn check_list(program: &Path) {
    let listed: Vec<_> = routines().collect();
    let functions = Functions::of(program);
    let mut found = 0;
    for name in functions.0.keys().filter_map(|symbol| routine_of(symbol)) {
        assert!(listed.contains(&name), "{name} is in no list");
        found += 1;
    }
    assert_eq!(found, listed.len());
}

pub fn check(program: &Path) {
    let functions = Functions::of(program);
    for (name, mnemonic) in WRITE_BACKS {
        let code = functions.routine(name);
        assert_eq!(of_kind(&code, Kind::WriteBack), [mnemonic], "{name}");
        assert!(code.iter().all(|i| i.memory_base() != Register::RSI), "{name} reads its source");
        orders_nothing(name, &code);
        println!("{name}: one {mnemonic:?}, {} instructions", code.len());
    }
    for (name, mnemonic) in STORES_WRITTEN_BACK {
        let code = functions.routine(name);
        let found = of_kind(&code, Kind::WriteBack);
        assert!(!found.is_empty(), "{name} writes nothing back");
        assert!(found.iter().all(|&one| one == mnemonic), "{name}: {found:?}");
        assert!(of_kind(&code, Kind::NonTemporal).is_empty(), "{name} bypasses the cache");
        orders_nothing(name, &code);
        println!("{name}: {mnemonic:?} in {} places, no other write-back", found.len());
    }
    for name in NON_TEMPORAL {
        let code = functions.routine(name);
        let cached: Vec<_> = code
            .iter()
            .filter(|i| stores_to_destination(i) && kind(i) != Kind::NonTemporal)
            .collect();
        assert!(cached.is_empty(), "{name}: {cached:?} go through the cache");
        let stores = of_kind(&code, Kind::NonTemporal).len();
        assert!(stores > 0, "{name} stores nothing");
        assert!(of_kind(&code, Kind::WriteBack).is_empty(), "{name} writes back");
        orders_nothing(name, &code);
        println!("{name}: {stores} non-temporal stores, no other store to the destination");
    }
    for name in CACHED {
        let code = functions.routine(name);
        assert!(of_kind(&code, Kind::NonTemporal).is_empty(), "{name} bypasses the cache");
        assert!(of_kind(&code, Kind::WriteBack).is_empty(), "{name} writes back");
        orders_nothing(name, &code);
    }
    let code = functions.routine("compare_exchange");
    assert_eq!(of_kind(&code, Kind::OtherOrder), [Mnemonic::Cmpxchg], "compare_exchange");
    only_routines_write_back(&functions);
}

/// No fence: that is `drain`'s, once for many.
fn orders_nothing(name: &str, code: &[Instruction]) {
    for unwanted in [Kind::StoreFence, Kind::OtherOrder, Kind::SystemCall] {
        let found = of_kind(code, unwanted);
        assert!(found.is_empty(), "{name}: {found:?}");
    }
    let calls = code.iter().any(|i| i.mnemonic() == Mnemonic::Call);
    assert!(!calls, "{name} is no leaf");
}

/// No other code of the library touches lines past the routines.
fn only_routines_write_back(functions: &Functions) {
    let mut fences = 0;
    for (symbol, code) in &functions.0 {
        if !symbol.contains("daxmap") && !symbol.starts_with("hot_") {
            continue;
        }
        fences += of_kind(code, Kind::StoreFence).len();
        if routine_of(symbol).is_some() {
            continue;
        }
        assert!(of_kind(code, Kind::WriteBack).is_empty(), "{symbol} writes back");
        assert!(of_kind(code, Kind::NonTemporal).is_empty(), "{symbol} bypasses the cache");
    }
    assert!(fences > 0, "there is no store fence in the program");
    println!("{fences} store fences in the code of the library and the cases");
}
