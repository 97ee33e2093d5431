//! Which instructions matter, and the address that one of them has.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use crate::ACKNOWLEDGE;

/// What an instruction does to the way of data into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Writes a cache line back.
    WriteBack,
    /// Stores around the caches.
    NonTemporal,
    /// Waits.
    Fence,
    /// The program says that something is durable.
    Acknowledge,
}

/// The kind of a 64-bit instruction; `None` if it does not matter.
pub(crate) fn classify(bytes: &[u8], address: u64) -> Option<(Kind, Instruction)> {
    let instruction = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
    let kind = match instruction.mnemonic() {
        Mnemonic::Clwb | Mnemonic::Clflush | Mnemonic::Clflushopt => Kind::WriteBack,
        Mnemonic::Movnti
        | Mnemonic::Movntq
        | Mnemonic::Movntdq
        | Mnemonic::Movntps
        | Mnemonic::Movntpd
        | Mnemonic::Movntss
        | Mnemonic::Movntsd
        | Mnemonic::Vmovntdq
        | Mnemonic::Vmovntps
        | Mnemonic::Vmovntpd
        | Mnemonic::Maskmovq
        | Mnemonic::Maskmovdqu
        | Mnemonic::Vmaskmovdqu
        | Mnemonic::Movdiri
        | Mnemonic::Movdir64b => Kind::NonTemporal,
        Mnemonic::Sfence | Mnemonic::Mfence => Kind::Fence,
        Mnemonic::Nop if acknowledges(&instruction) => Kind::Acknowledge,
        _ => return None,
    };
    (instruction.code() != Code::INVALID).then_some((kind, instruction))
}

fn acknowledges(instruction: &Instruction) -> bool {
    instruction.op_kind(0) == OpKind::Memory
        && instruction.memory_base() == Register::RAX
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64() == i64::from(ACKNOWLEDGE).cast_unsigned()
}

/// The virtual address of the instruction's memory operand; `None` if it has none, or a register
/// is not among the general ones. `ip` is the address it runs at.
pub(crate) fn operand_address(
    instruction: &Instruction,
    register: impl Fn(usize) -> Option<u64>,
) -> Option<u64> {
    let operand =
        (0..instruction.op_count()).find(|&i| instruction.op_kind(i) == OpKind::Memory)?;
    instruction.virtual_address(operand, 0, |wanted, _, _| match wanted {
        // Flat in long mode; FS and GS are not, and nobody writes back through them.
        Register::ES | Register::CS | Register::SS | Register::DS => Some(0),
        _ if wanted.is_gpr64() => register(wanted.number()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(bytes: &[u8]) -> Option<Kind> {
        classify(bytes, 0).map(|(kind, _)| kind)
    }

    #[test]
    fn write_backs_and_fences_are_told_apart() {
        assert_eq!(kind(&[0x66, 0x0f, 0xae, 0x30]), Some(Kind::WriteBack)); // clwb [rax]
        assert_eq!(kind(&[0x66, 0x0f, 0xae, 0x38]), Some(Kind::WriteBack)); // clflushopt [rax]
        assert_eq!(kind(&[0x3e, 0x0f, 0xae, 0x38]), Some(Kind::WriteBack)); // ds clflush [rax]
        assert_eq!(kind(&[0x0f, 0xae, 0x30]), None); // xsaveopt [rax]
        assert_eq!(kind(&[0x0f, 0xae, 0xf8]), Some(Kind::Fence)); // sfence
        assert_eq!(kind(&[0x0f, 0xae, 0xf0]), Some(Kind::Fence)); // mfence
        assert_eq!(kind(&[0x0f, 0xae, 0xe8]), None); // lfence
        assert_eq!(kind(&[0x48, 0x0f, 0xc3, 0x07]), Some(Kind::NonTemporal)); // movnti [rdi], rax
        assert_eq!(kind(&[0xc5, 0xfd, 0xe7, 0x07]), Some(Kind::NonTemporal)); // vmovntdq [rdi], ymm0
        assert_eq!(kind(&[0x66, 0x0f, 0x7f, 0x07]), None); // movdqa [rdi], xmm0
        assert_eq!(kind(&[0x90]), None);
        assert_eq!(kind(&[0x0f, 0x1f, 0x80, 0x6d, 0x78, 0x61, 0x64]), Some(Kind::Acknowledge));
        assert_eq!(kind(&[0x0f, 0x1f, 0x80, 0, 0, 0, 0]), None); // nop [rax]
    }

    #[test]
    fn addresses_are_computed() {
        let address = |bytes: &[u8]| {
            let (_, instruction) = classify(bytes, 0).unwrap();
            operand_address(&instruction, |number| Some(0x1000 * (number as u64 + 1)))
        };
        assert_eq!(address(&[0x66, 0x0f, 0xae, 0x30]), Some(0x1000)); // clwb [rax]
        // clwb [r9 + rcx*4 - 0x40]
        assert_eq!(
            address(&[0x66, 0x41, 0x0f, 0xae, 0x74, 0x89, 0xc0]),
            Some(0xa000 + 0x8000 - 0x40)
        );
        assert_eq!(address(&[0x64, 0x66, 0x0f, 0xae, 0x30]), None); // clwb fs:[rax]
    }
}
