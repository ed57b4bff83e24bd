        .code16
        .section .text
start:
        cli
        lgdtl %cs:gdt_pointer - start
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        ljmpl $0x10, $0xffff0000 + flat - start
        .code32
flat:
        mov $0x18, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $0x100000, %esi
        mov %esi, %edi
        xor %ebx, %ebx
        cld
        xor %ebp, %ebp
read:
        mov $0x1f2, %edx
        mov $128, %al
        out %al, (%dx)
        inc %edx
        mov %ebx, %eax
        out %al, (%dx)
        inc %edx
        shr $8, %eax
        out %al, (%dx)
        inc %edx
        shr $8, %eax
        out %al, (%dx)
        inc %edx
        shr $8, %eax
        or $0xe0, %al
        out %al, (%dx)
        inc %edx
        mov $0x20, %al
        out %al, (%dx)
        mov $128, %ah
sector:
        mov $0x1f7, %edx
ready:
        in (%dx), %al
        test $0x80, %al
        jnz ready
        test $0x08, %al
        jz ready
        mov $0x1f0, %edx
        mov $128, %ecx
        rep insl
        dec %ah
        jnz sector
        add $128, %ebx
        mov 0x1f4(%esi), %eax
        shl $4, %eax
        add 0x214(%esi), %eax
        cmp %eax, %edi
        jb read
        jmp *0x214(%esi)
        .balign 8
gdt:    .quad 0, 0
        .quad 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_pointer:
        .word gdt_pointer - gdt - 1
        .long 0xffff0000 + gdt - start
        .org 0xfff0
        .code16
        ljmp $0xf000, $0
        .org 0x10000
