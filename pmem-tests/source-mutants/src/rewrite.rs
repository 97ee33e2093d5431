//! A source file with all its mutants in it, each behind a number.
//!
//! Where a mutant differs from the source, the file gets both: `if on(17) { a >= b } else { a > b }`.
//! The branch of a mutant has everything else as it was, so what is tried is what cargo-mutants would
//! have built by itself. Left out is what the compiler has to compute: constants, lengths and
//! patterns.

use std::collections::{HashMap, HashSet};

use proc_macro2::Span;
use quote::quote;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Arm, BinOp, Block, Expr, File, ImplItemFn, ItemFn, TraitItemFn, UnOp, parse_quote};

use crate::list::{Genre, Mutant, Place};

/// The module that says which mutant is on.
pub const MODULE: &str = "source_mutants_switch";

/// The file, and the mutants that are in it.
pub struct Rewritten {
    pub text: String,
    pub contained: HashSet<u32>,
    /// What no compiler takes: `||` in a chain with `let`.
    pub refused: HashSet<u32>,
}

/// Puts `mutants` into `source`. `constant`: names of functions that stay `const`.
pub fn rewrite(
    source: &str,
    mutants: &[(u32, &Mutant)],
    constant: &HashSet<String>,
) -> syn::Result<Rewritten> {
    let mut file: File = syn::parse_file(source)?;
    let mut rewriter = Rewriter {
        places: HashMap::new(),
        contained: HashSet::new(),
        refused: HashSet::new(),
        constant,
    };
    for (id, mutant) in mutants {
        rewriter
            .places
            .entry((mutant.genre, mutant.span.start))
            .or_default()
            .push((*id, mutant.replacement.clone()));
    }
    rewriter.visit_file_mut(&mut file);
    let text = prettyplease::unparse(&file);
    Ok(Rewritten { text, contained: rewriter.contained, refused: rewriter.refused })
}

struct Rewriter<'a> {
    places: HashMap<(Genre, Place), Vec<(u32, String)>>,
    contained: HashSet<u32>,
    refused: HashSet<u32>,
    constant: &'a HashSet<String>,
}

/// Where something starts.
fn start(span: Span) -> Place {
    let start = span.start();
    Place { line: start.line, column: start.column + 1 }
}

/// Whether mutant `id` is on, as an expression.
fn on(id: u32) -> Expr {
    let module = syn::Ident::new(MODULE, Span::call_site());
    parse_quote!(crate::#module::on(#id))
}

/// Whether `&&` is of a chain with `let` in it, which has no value of its own.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) if matches!(binary.op, BinOp::And(_)) => {
            has_let(&binary.left) || has_let(&binary.right)
        }
        _ => false,
    }
}

impl Rewriter<'_> {
    fn at(&self, genre: Genre, span: Span) -> Vec<(u32, String)> {
        self.places.get(&(genre, start(span))).cloned().unwrap_or_default()
    }

    /// The mutants of one expression, whose parts are as in the source.
    fn variants(&self, original: &Expr) -> Vec<(u32, Expr)> {
        match original {
            Expr::Binary(binary) if !has_let(original) => self
                .at(Genre::BinaryOperator, binary.op.span())
                .into_iter()
                .filter_map(|(id, replacement)| {
                    let mut changed = binary.clone();
                    changed.op = syn::parse_str(&replacement).ok()?;
                    Some((id, Expr::Binary(changed)))
                })
                .collect(),
            Expr::Unary(unary) => {
                let (UnOp::Not(_) | UnOp::Neg(_)) = unary.op else { return Vec::new() };
                let operand = &unary.expr;
                self.at(Genre::UnaryOperator, unary.op.span())
                    .into_iter()
                    .map(|(id, _)| (id, parse_quote!((#operand))))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// `return` at the beginning of a function's body.
    fn function(
        &mut self,
        block: &mut Block,
        name: &str,
        constness: &mut Option<syn::token::Const>,
    ) {
        if constness.is_some() {
            if self.constant.contains(name) {
                return;
            }
            *constness = None;
        }
        let first = block.stmts.first().map_or_else(|| block.span(), Spanned::span);
        let mut values = self.at(Genre::FnValue, first);
        if values.is_empty() {
            values = self.at(Genre::FnValue, block.span());
        }
        visit_mut::visit_block_mut(self, block);
        for (id, replacement) in values.into_iter().rev() {
            let Ok(value) = syn::parse_str::<Expr>(&replacement) else { continue };
            let on = on(id);
            block.stmts.insert(0, parse_quote!(if #on { return #value; }));
            self.contained.insert(id);
        }
    }
}

impl VisitMut for Rewriter<'_> {
    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        // A block that is computed by the compiler.
        if matches!(expr, Expr::Const(_)) {
            return;
        }
        let original = expr.clone();
        if let Expr::Binary(binary) = &original
            && has_let(&original)
        {
            let ids =
                self.at(Genre::BinaryOperator, binary.op.span()).into_iter().map(|(id, _)| id);
            self.refused.extend(ids);
        }
        visit_mut::visit_expr_mut(self, expr);
        let mut chosen = None;
        for (id, variant) in self.variants(&original).into_iter().rev() {
            let (on, otherwise) = (on(id), chosen.unwrap_or_else(|| expr.clone()));
            let branch: Expr = parse_quote!(if #on { #variant } else { #otherwise });
            chosen = Some(branch);
            self.contained.insert(id);
        }
        if let Some(chosen) = chosen {
            *expr = parse_quote!((#chosen));
        }
    }

    fn visit_expr_struct_mut(&mut self, literal: &mut syn::ExprStruct) {
        let rest = literal.rest.clone();
        visit_mut::visit_expr_struct_mut(self, literal);
        let Some(rest) = rest else { return };
        let path = literal.path.clone();
        for field in &mut literal.fields {
            for (id, _) in self.at(Genre::StructField, field.span()) {
                let (on, value, member) = (on(id), &field.expr, &field.member);
                field.expr = parse_quote!(if #on { let other: #path = #rest; other.#member } else { #value });
                field.colon_token.get_or_insert_default();
                self.contained.insert(id);
            }
        }
    }

    fn visit_arm_mut(&mut self, arm: &mut Arm) {
        let without = self.at(Genre::MatchArm, arm.span());
        let guards = arm
            .guard
            .as_ref()
            .map(|(_, guard)| self.at(Genre::MatchArmGuard, guard.span()))
            .unwrap_or_default();
        visit_mut::visit_arm_mut(self, arm);
        for (id, replacement) in guards {
            let Some((_, guard)) = &mut arm.guard else { continue };
            let on = on(id);
            **guard = match replacement.as_str() {
                "true" => parse_quote!((#on || #guard)),
                _ => parse_quote!((!#on && #guard)),
            };
            self.contained.insert(id);
        }
        for (id, _) in without {
            let on = on(id);
            arm.guard = Some(match arm.guard.take() {
                Some((token, guard)) => (token, parse_quote!(!#on && (#guard))),
                None => (syn::token::If::default(), parse_quote!(!#on)),
            });
            self.contained.insert(id);
        }
    }

    fn visit_item_fn_mut(&mut self, function: &mut ItemFn) {
        let name = function.sig.ident.to_string();
        self.function(&mut function.block, &name, &mut function.sig.constness);
    }

    fn visit_impl_item_fn_mut(&mut self, function: &mut ImplItemFn) {
        let name = function.sig.ident.to_string();
        self.function(&mut function.block, &name, &mut function.sig.constness);
    }

    fn visit_trait_item_fn_mut(&mut self, function: &mut TraitItemFn) {
        let name = function.sig.ident.to_string();
        if let Some(block) = &mut function.default {
            self.function(block, &name, &mut function.sig.constness);
        }
    }

    // What the compiler computes.
    fn visit_item_const_mut(&mut self, _: &mut syn::ItemConst) {}
    fn visit_item_static_mut(&mut self, _: &mut syn::ItemStatic) {}
    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}
    fn visit_trait_item_const_mut(&mut self, _: &mut syn::TraitItemConst) {}
    fn visit_variant_mut(&mut self, _: &mut syn::Variant) {}
    fn visit_pat_mut(&mut self, _: &mut syn::Pat) {}
    fn visit_type_mut(&mut self, _: &mut syn::Type) {}
    fn visit_generic_argument_mut(&mut self, _: &mut syn::GenericArgument) {}
    fn visit_expr_repeat_mut(&mut self, repeat: &mut syn::ExprRepeat) {
        self.visit_expr_mut(&mut repeat.expr);
    }
}

/// The source of the module that says which mutant is on. Variables of the environment: the number
/// of the mutant, and a file that gets a byte for each that was reached.
pub fn switch(count: u32) -> String {
    let module = syn::Ident::new(MODULE, Span::call_site());
    let count = usize::try_from(count).expect("64-bit Linux only") + 1;
    let file: File = parse_quote! {
        #[allow(unsafe_code, missing_docs, clippy::all, clippy::pedantic)]
        pub(crate) mod #module {
            use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

            static CHOSEN: AtomicU32 = AtomicU32::new(u32::MAX);
            static REACHED: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

            #[inline]
            pub(crate) fn on(id: u32) -> bool {
                let mut chosen = CHOSEN.load(Ordering::Acquire);
                if chosen == u32::MAX {
                    chosen = begin();
                }
                let reached = REACHED.load(Ordering::Relaxed);
                if !reached.is_null() {
                    // SAFETY: a mapping of a byte for each number, which is never unmapped.
                    unsafe { reached.add(id as usize).write_volatile(1) };
                }
                chosen == id
            }

            #[cold]
            fn begin() -> u32 {
                let chosen = std::env::var("DAXMAP_SOURCE_MUTANT").ok();
                let chosen = chosen.and_then(|id| id.parse().ok()).unwrap_or(0);
                if let Some(path) = std::env::var_os("DAXMAP_SOURCE_REACHED") {
                    let file = std::fs::OpenOptions::new().read(true).write(true).open(path);
                    if let Ok(file) = file {
                        // SAFETY: a new mapping where the kernel likes: nothing that exists is touched.
                        let address = unsafe {
                            libc::mmap(
                                std::ptr::null_mut(),
                                #count,
                                libc::PROT_READ | libc::PROT_WRITE,
                                libc::MAP_SHARED,
                                std::os::fd::AsRawFd::as_raw_fd(&file),
                                0,
                            )
                        };
                        if address != libc::MAP_FAILED {
                            REACHED.store(address.cast(), Ordering::Release);
                        }
                    }
                }
                CHOSEN.store(chosen, Ordering::Release);
                chosen
            }
        }
    };
    quote!(#file).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::Span as At;

    const SOURCE: &str = "\
const A: u64 = 1 + 2;
pub fn f(a: u64, b: u64) -> bool {
    a + 1 > b
}
pub const fn g(a: i64) -> i64 {
    match a {
        0 if A == 3 => -a,
        _ => a,
    }
}
";

    fn mutant(genre: Genre, (line, column): (usize, usize), replacement: &str) -> Mutant {
        Mutant {
            name: String::new(),
            file: "src/lib.rs".into(),
            function: None,
            genre,
            replacement: replacement.to_owned(),
            span: At { start: Place { line, column }, end: Place { line, column } },
            line: String::new(),
        }
    }

    fn rewritten(mutants: &[Mutant], constant: &[&str]) -> (String, Vec<u32>) {
        let numbered: Vec<_> = (1..).zip(mutants).collect();
        let constant = constant.iter().map(|&name| name.to_owned()).collect();
        let rewritten = rewrite(SOURCE, &numbered, &constant).unwrap();
        let mut contained: Vec<u32> = rewritten.contained.into_iter().collect();
        contained.sort_unstable();
        let text = rewritten.text.replace("crate::source_mutants_switch::", "");
        (text.split_whitespace().collect::<Vec<_>>().join(" "), contained)
    }

    #[test]
    fn every_mutant_is_a_branch_in_which_the_rest_is_as_it_was() {
        let mutants = [
            mutant(Genre::FnValue, (3, 5), "true"),
            mutant(Genre::BinaryOperator, (3, 7), "-"),
            mutant(Genre::BinaryOperator, (3, 11), ">="),
            mutant(Genre::BinaryOperator, (3, 11), "<"),
        ];
        let (text, contained) = rewritten(&mutants, &[]);
        assert_eq!(contained, [1, 2, 3, 4]);
        let body = "if on(1u32) { return true; } (if on(3u32) { a + 1 >= b } else { if on(4u32) { \
                    a + 1 < b } else { (if on(2u32) { a - 1 } else { a + 1 }) > b } })";
        assert!(text.contains(body), "{text}");
    }

    #[test]
    fn arms_and_guards_and_signs() {
        let mutants = [
            mutant(Genre::MatchArm, (7, 9), ""),
            mutant(Genre::MatchArmGuard, (7, 14), "true"),
            mutant(Genre::MatchArmGuard, (7, 14), "false"),
            mutant(Genre::UnaryOperator, (7, 24), ""),
        ];
        let (text, contained) = rewritten(&mutants, &[]);
        assert_eq!(contained, [1, 2, 3, 4]);
        let guard = "0 if !on(1u32) && ((!on(3u32) && (on(2u32) || A == 3))) =>";
        assert!(text.contains(guard), "{text}");
        assert!(text.contains("(if on(4u32) { (a) } else { -a })"), "{text}");
        assert!(text.contains("pub fn g"), "{text}");
    }

    #[test]
    fn a_chain_with_let_has_no_other_operator() {
        let source = "fn f(a: Option<u64>) { if let Some(a) = a && a > 1 && a < 3 {} }";
        let mutants = [
            mutant(Genre::BinaryOperator, (1, 43), "||"),
            mutant(Genre::BinaryOperator, (1, 48), "=="),
            mutant(Genre::BinaryOperator, (1, 52), "||"),
        ];
        let numbered: Vec<_> = (1..).zip(&mutants).collect();
        let rewritten = rewrite(source, &numbered, &HashSet::new()).unwrap();
        assert_eq!(rewritten.contained, HashSet::from([2]), "{}", rewritten.text);
        assert_eq!(rewritten.refused, HashSet::from([1, 3]));
    }

    #[test]
    fn constants_stay() {
        let mutants =
            [mutant(Genre::BinaryOperator, (1, 18), "-"), mutant(Genre::MatchArm, (7, 9), "")];
        let (text, contained) = rewritten(&mutants, &["g"]);
        assert!(contained.is_empty() && !text.contains("on("), "{text}");
        assert!(text.contains("pub const fn g"), "{text}");
    }
}
