"""From calibrated objects to candidates: template, subtract, fakes, transients."""


rule template:
    input:
        previous=rules.astrometry.output.state,
        fetched=fetched_template("state"),
        wcs=rules.astrometry.output.wcs,
        inspect=rules.inspect.output.state,
        detections=rules.detect.output.detections,
        template=template_file,
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
        params=section("template"),
        code=code("template"),
        contents=contents(template_file, template_mask),
        source=template_source,
    shell:
        "nightsift template --name {wildcards.image} --params {params.params:q} --code {params.code}"
        " --previous {input.previous:q} {input.fetched:q} --wcs {input.wcs:q} --inspect {input.inspect:q}"
        " --detections {input.detections:q} --source {params.source:q} --mosaic {input.mosaic:q}"
        " --usermask {input.usermask:q}"
        " --state {output.state:q} --template {output.template:q} > {log:q} 2>&1"


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
        params=section("subtract"),
        code=code("subtract"),
    shell:
        "nightsift subtract --name {wildcards.image} --params {params.params:q} --code {params.code}"
        " --previous {input.previous:q} --exposure {input.exposure:q} --inspect {input.inspect:q}"
        " --detect {input.detect:q} --mask {input.mask:q} --objects {input.objects:q}"
        " --template {input.template:q} --wcs {input.wcs:q}"
        " --state {output.state:q} --difference {output.difference:q} --psf {output.psf:q} > {log:q} 2>&1"


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
        params=section("fakes"),
        extra=sections("inspect", "subtract", "transients"),
        code=code("fakes"),
    shell:
        "nightsift fakes --name {wildcards.image} --params {params.params:q} --code {params.code}"
        " --extra {params.extra:q} --previous {input.previous:q} --exposure {input.exposure:q}"
        " --inspect {input.inspect:q} --detect {input.detect:q} --mask {input.mask:q} --objects {input.objects:q}"
        " --template {input.template:q} --difference {input.difference:q} --subtract {input.previous:q}"
        " --psf {input.psf:q} --image_psf {input.image_psf:q}"
        " --state {output.state:q} --fakes {output.fakes:q} > {log:q} 2>&1"


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
        params=section("transients"),
        code=code("transients"),
    shell:
        "nightsift transients --name {wildcards.image} --params {params.params:q} --code {params.code}"
        " --previous {input.previous:q} --exposure {input.exposure:q} --inspect {input.inspect:q}"
        " --photometry {input.photometry:q} --objects {input.objects:q} --difference {input.difference:q}"
        " --subtract {input.subtract:q} --psf {input.psf:q} --template {input.template:q} --wcs {input.wcs:q}"
        " --fakes {input.fakes:q} --catalog {input.catalog:q}"
        " --state {output.state:q} --candidates {output.candidates:q} --everything {output.everything:q}"
        " --cutouts {output.cutouts:q} > {log:q} 2>&1"
