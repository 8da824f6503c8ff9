/* The sector that kvm_probe.py boots: real mode, long mode, a page fault mended, sixteen million turns of a loop, debug exit.
 *
 *     as -o probe.o kvm_probe.S && ld -Ttext 0x7c00 --oformat binary -o probe.bin probe.o
 *
 * gives the bytes that stand in kvm_probe.py. */
    .code16
    .globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    ljmp $0, $1f
1:  in $0x92, %al
    or $2, %al
    out %al, $0x92
    # page tables at 0x1000..0x3fff: one 2 MiB page
    mov $0x1000, %edi
    mov %edi, %cr3
    xor %eax, %eax
    mov $3072, %ecx
    cld
    rep stosl
    movl $0x2003, 0x1000
    movl $0x3003, 0x2000
    movl $0x0083, 0x3000
    mov %cr4, %eax
    or $0x20, %eax
    mov %eax, %cr4
    mov $0xC0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    lgdt gdtr
    mov %cr0, %eax
    or $0x80000001, %eax
    mov %eax, %cr0
    ljmp $8, $long
    .code64
long:
    mov $16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %esp
    # interrupt gate 14 at 0x5000 + 14*16
    mov $0x5000 + 14*16, %edi
    mov $fault, %eax
    mov %ax, (%rdi)
    movw $8, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    shr $16, %eax
    mov %ax, 6(%rdi)
    movq $0, 8(%rdi)
    lidt idtr
    mov $0x200000, %ebx
    movl $0x12345678, (%rbx)     # not mapped: faults
    cmpl $0x12345678, (%rbx)
    jne die
    mov $0x1000000, %ecx         # sixteen million turns: nothing for a processor, ages for an emulator
2:  dec %ecx
    jnz 2b
    mov $0x8, %al
    mov $0xf4, %dx
    out %al, %dx
die: hlt
    jmp die
fault:
    movl $0x200083, 0x3008
    add $8, %rsp
    iretq
    .align 8
gdt: .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
gdtr: .word 23
    .long gdt
idtr: .word 16*15-1
    .quad 0x5000
    .org 510
    .word 0xaa55
