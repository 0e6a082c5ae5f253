"""From a FITS image to calibrated objects: inspect, detect, catalog, astrometry, photometry, uncatalogued."""


rule inspect:
    input:
        exposure=exposure,
        usermask=user_mask,
    output:
        state=f"{IMAGE}/inspect.json",
        mask=f"{IMAGE}/mask.fits",
    log:
        f"{IMAGE}/logs/inspect.log",
    group:
        "image"
    resources:
        mem_mb=memory,
        runtime=minutes_with_search,
    params:
        params=section("inspect"),
        extra=overrides,
        code=code("inspect"),
        contents=contents(exposure, user_mask, CAMPAIGN.config["inspect"]["indexes"]),
    shell:
        "nightsift inspect --name {wildcards.image} --params {params.params:q} --code {params.code}"
        " --extra {params.extra:q} --exposure {input.exposure:q} --usermask {input.usermask:q}"
        " --state {output.state:q} --mask {output.mask:q} > {log:q} 2>&1"


rule detect:
    input:
        previous=rules.inspect.output.state,
        exposure=exposure,
        mask=rules.inspect.output.mask,
    output:
        state=f"{IMAGE}/detect.json",
        detections=f"{IMAGE}/detections.fits",
    log:
        f"{IMAGE}/logs/detect.log",
    group:
        "image"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        params=section("detect"),
        code=code("detect"),
    shell:
        "nightsift detect --name {wildcards.image} --params {params.params:q} --code {params.code}"
        " --previous {input.previous:q} --exposure {input.exposure:q} --mask {input.mask:q}"
        " --inspect {input.previous:q}"
        " --state {output.state:q} --detections {output.detections:q} > {log:q} 2>&1"


rule psf:
    input:
        previous=rules.detect.output.state,
        exposure=exposure,
        mask=rules.inspect.output.mask,
        inspect=rules.inspect.output.state,
        detections=rules.detect.output.detections,
    output:
        state=f"{IMAGE}/psf.json",
        psf=f"{IMAGE}/image_psf.fits",
        photometry=f"{IMAGE}/psf_photometry.fits",
    log:
        f"{IMAGE}/logs/psf.log",
    group:
        "image"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        params=section("psf"),
        code=code("psf"),
    shell:
        "nightsift psf --name {wildcards.image} --params {params.params:q} --code {params.code}"
        " --previous {input.previous:q} --exposure {input.exposure:q} --mask {input.mask:q}"
        " --inspect {input.inspect:q} --detect {input.previous:q} --detections {input.detections:q}"
        " --state {output.state:q} --psf {output.psf:q} --photometry {output.photometry:q} > {log:q} 2>&1"


rule catalog:
    input:
        previous=[rules.inspect.output.state, *fetched("state")],
        inspect=rules.inspect.output.state,
        stars=fetched("stars") or CAMPAIGN.config["catalog"]["path"],
        fetched=fetched("state"),
        gaia=fetched("gaia"),
    output:
        state=f"{IMAGE}/catalog.json",
        catalog=f"{IMAGE}/catalog.fits",
    log:
        f"{IMAGE}/logs/catalog.log",
    group:
        "image"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        params=section("catalog"),
        code=code("catalog"),
        contents=contents(not fetched("stars") and CAMPAIGN.config["catalog"]["path"]),
    shell:
        "nightsift catalog --name {wildcards.image} --params {params.params:q} --code {params.code}"
        " --previous {input.previous:q} --inspect {input.inspect:q} --stars {input.stars:q}"
        " --fetched {input.fetched:q} --gaia {input.gaia:q}"
        " --state {output.state:q} --catalog {output.catalog:q} > {log:q} 2>&1"


rule astrometry:
    input:
        previous=[rules.detect.output.state, rules.catalog.output.state],
        inspect=rules.inspect.output.state,
        detections=rules.detect.output.detections,
        catalog=rules.catalog.output.catalog,
    output:
        state=f"{IMAGE}/astrometry.json",
        wcs=f"{IMAGE}/wcs.fits",
        matches=f"{IMAGE}/matches.fits",
    log:
        f"{IMAGE}/logs/astrometry.log",
    group:
        "image"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        params=section("astrometry"),
        code=code("astrometry"),
    shell:
        "nightsift astrometry --name {wildcards.image} --params {params.params:q} --code {params.code}"
        " --previous {input.previous:q} --inspect {input.inspect:q}"
        " --detections {input.detections:q} --catalog {input.catalog:q}"
        " --state {output.state:q} --wcs {output.wcs:q} --matches {output.matches:q} > {log:q} 2>&1"


rule photometry:
    input:
        previous=[rules.astrometry.output.state, rules.psf.output.state],
        inspect=rules.inspect.output.state,
        detect=rules.detect.output.state,
        detections=rules.detect.output.detections,
        psf=rules.psf.output.photometry,
        shape=rules.psf.output.state,
        wcs=rules.astrometry.output.wcs,
        catalog=rules.catalog.output.catalog,
    output:
        state=f"{IMAGE}/photometry.json",
        objects=f"{IMAGE}/objects.fits",
        calibrators=f"{IMAGE}/calibrators.fits",
    log:
        f"{IMAGE}/logs/photometry.log",
    group:
        "image"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        params=section("photometry"),
        code=code("photometry"),
    shell:
        "nightsift photometry --name {wildcards.image} --params {params.params:q} --code {params.code}"
        " --previous {input.previous:q} --inspect {input.inspect:q} --detect {input.detect:q}"
        " --detections {input.detections:q} --psf {input.psf:q} --shape {input.shape:q} --wcs {input.wcs:q}"
        " --catalog {input.catalog:q}"
        " --state {output.state:q} --objects {output.objects:q} --calibrators {output.calibrators:q} > {log:q} 2>&1"


rule uncatalogued:
    input:
        previous=rules.photometry.output.state,
        inspect=rules.inspect.output.state,
        detect=rules.detect.output.state,
        astrometry=rules.astrometry.output.state,
        mask=rules.inspect.output.mask,
        objects=rules.photometry.output.objects,
        catalog=rules.catalog.output.catalog,
    output:
        state=f"{IMAGE}/uncatalogued.json",
        candidates=f"{IMAGE}/uncatalogued.fits",
        everything=f"{IMAGE}/uncatalogued_all.fits",
    log:
        f"{IMAGE}/logs/uncatalogued.log",
    group:
        "image"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        params=section("uncatalogued"),
        code=code("uncatalogued"),
    shell:
        "nightsift uncatalogued --name {wildcards.image} --params {params.params:q} --code {params.code}"
        " --previous {input.previous:q} --inspect {input.inspect:q} --detect {input.detect:q}"
        " --astrometry {input.astrometry:q} --photometry {input.previous:q} --mask {input.mask:q}"
        " --objects {input.objects:q} --catalog {input.catalog:q}"
        " --state {output.state:q} --candidates {output.candidates:q} --everything {output.everything:q} > {log:q} 2>&1"
