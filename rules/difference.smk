"""From calibrated objects to candidates: template, subtract, fakes, transients."""


rule template:
    input:
        previous=template_states,
        wcs=rules.astrometry.output.wcs,
        inspect=rules.inspect.output.state,
        detections=rules.detect.output.detections,
        files=template_file,
        mosaic=fetched_template("mosaic"),
        usermask=template_mask,
    output:
        state=f"{IMAGE}/template.json",
        template=f"{IMAGE}/template.fits",
    log:
        f"{IMAGE}/logs/template.log",
    group:
        "image"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        **options("template", contents=contents(template_file, template_mask), files=named_template),
    shell:
        RUN_STAGE


rule subtract:
    input:
        previous=[rules.photometry.output.state, rules.template.output.state],
        exposure=exposure,
        inspect=rules.inspect.output.state,
        detect=rules.detect.output.state,
        mask=rules.inspect.output.mask,
        objects=rules.photometry.output.objects,
        template=rules.template.output.template,
        wcs=rules.astrometry.output.wcs,
    output:
        state=f"{IMAGE}/subtract.json",
        difference=f"{IMAGE}/difference.fits",
        psf=f"{IMAGE}/psf.fits",
    log:
        f"{IMAGE}/logs/subtract.log",
    group:
        "image"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        **options("subtract"),
    shell:
        RUN_STAGE


rule fakes:
    input:
        previous=rules.subtract.output.state,
        exposure=exposure,
        inspect=rules.inspect.output.state,
        detect=rules.detect.output.state,
        mask=rules.inspect.output.mask,
        objects=rules.photometry.output.objects,
        template=rules.template.output.template,
        difference=rules.subtract.output.difference,
        subtract=rules.subtract.output.state,
        psf=rules.subtract.output.psf,
        image_psf=rules.psf.output.psf,
    output:
        state=f"{IMAGE}/fakes.json",
        fakes=f"{IMAGE}/fakes.fits",
    log:
        f"{IMAGE}/logs/fakes.log",
    group:
        "image"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        **options("fakes", extra=sections("inspect", "subtract", "transients")),
    shell:
        RUN_STAGE


rule transients:
    input:
        previous=rules.fakes.output.state,
        subtract=rules.subtract.output.state,
        exposure=exposure,
        inspect=rules.inspect.output.state,
        photometry=rules.photometry.output.state,
        objects=rules.photometry.output.objects,
        difference=rules.subtract.output.difference,
        psf=rules.subtract.output.psf,
        template=rules.template.output.template,
        wcs=rules.astrometry.output.wcs,
        fakes=rules.fakes.output.fakes,
        catalog=rules.catalog.output.catalog,
    output:
        state=f"{IMAGE}/status.json",
        candidates=f"{IMAGE}/candidates.fits",
        everything=f"{IMAGE}/candidates_all.fits",
        cutouts=f"{IMAGE}/cutouts.fits",
    log:
        f"{IMAGE}/logs/transients.log",
    group:
        "image"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        **options("transients"),
    shell:
        RUN_STAGE
