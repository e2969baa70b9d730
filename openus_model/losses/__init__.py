"""Loss terms, one file each; every term is a function of plain tensors, in float32."""
