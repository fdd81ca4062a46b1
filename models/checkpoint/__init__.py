"""Published weights, in whichever form they come, made into bundles.

`places` finds the files of a source (a path, or an id on the `hub`), `reading` gives their tensors the published names,
`anatomy` reads a net off their shapes, `autoencoders` a VAE off its config, `assembly` puts a bundle's spec together,
and `importing` writes the bundle. A new form of weights is a module that `reading` calls.
"""
