/* A bundle as linked data: cc -c -DSL_BUNDLE='"model.slb"' bundle.S */
    .section .rodata
    .balign 64
    .globl starlight_bundle
starlight_bundle:
    .incbin SL_BUNDLE
end_of_bundle:
    .balign 8
    .globl starlight_bundle_bytes
starlight_bundle_bytes: /* a size_t */
#if __SIZEOF_SIZE_T__ == 8
    .quad end_of_bundle - starlight_bundle
#else
    .long end_of_bundle - starlight_bundle
#endif
#if defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
