/* SPDX-License-Identifier: Apache-2.0 */
/* The ROM of the machine that Bochs plays, in place of a BIOS: it loads what bochs_disk.py put on
 * the disk to 1 MiB, the parameters of a Linux kernel and the kernel at the end, and enters that as
 * its 32-bit boot protocol says (Documentation/x86/boot.rst there). */

#define DISK 0x1f0    /* the first port of the first ATA channel */
#define LOADED 0x100000
#define SIZE_OF_KERNEL 0x1f4 /* in the parameters: paragraphs of 16 bytes */
#define ENTRY 0x214
#define AT_ONCE 128   /* sectors that one command reads */
#define ROM 0xffff0000

        .code16
        .text
start:
        cli
        cld
        lgdtl   %cs:gdt_pointer - start
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $0x10, $ROM + flat - start

        .code32
flat:
        mov     $0x18, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $LOADED, %esi           /* where the kernel looks for its parameters */
        mov     %esi, %edi
        xor     %ebp, %ebp
        xor     %ebx, %ebx              /* the next sector */

command:                                /* read AT_ONCE sectors, by number, from the first disk */
        mov     $DISK + 2, %edx
        mov     $AT_ONCE, %al
        out     %al, (%dx)
        inc     %edx
        mov     %ebx, %eax
        out     %al, (%dx)
        inc     %edx
        shr     $8, %eax
        out     %al, (%dx)
        inc     %edx
        shr     $8, %eax
        out     %al, (%dx)
        inc     %edx
        mov     $0xe0, %al
        out     %al, (%dx)
        inc     %edx
        mov     $0x20, %al
        out     %al, (%dx)
        mov     $AT_ONCE, %ah
sector:
        mov     $DISK + 7, %edx
busy:                                   /* until the sector's data are there */
        in      (%dx), %al
        test    $0x80, %al
        jnz     busy
        test    $0x08, %al
        jz      busy
        mov     $DISK, %edx
        mov     $512 / 4, %ecx
        rep insl
        dec     %ah
        jnz     sector
        add     $AT_ONCE, %ebx

        mov     SIZE_OF_KERNEL(%esi), %eax
        shl     $4, %eax
        add     ENTRY(%esi), %eax
        cmp     %eax, %edi
        jb      command
        jmp     *ENTRY(%esi)

        .balign 8
gdt:                                    /* the kernel asks for code at 0x10 and data at 0x18 */
        .quad   0, 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   ROM + gdt - start

        .org    0xfff0                  /* where the processor starts */
        .code16
        ljmp    $0xf000, $0             /* the ROM's copy below 1 MiB */
        .org    0x10000
