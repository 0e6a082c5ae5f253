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
        **options(
            "inspect",
            extra=overrides,
            contents=contents(exposure, user_mask, CAMPAIGN.config["inspect"]["indexes"]),
        ),
    shell:
        RUN_STAGE


rule detect:
    input:
        previous=rules.inspect.output.state,
        exposure=exposure,
        mask=rules.inspect.output.mask,
        inspect=rules.inspect.output.state,
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
        **options("detect"),
    shell:
        RUN_STAGE


rule psf:
    input:
        previous=rules.detect.output.state,
        exposure=exposure,
        mask=rules.inspect.output.mask,
        inspect=rules.inspect.output.state,
        detect=rules.detect.output.state,
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
        **options("psf"),
    shell:
        RUN_STAGE


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
        **options("catalog", contents=contents(not fetched("stars") and CAMPAIGN.config["catalog"]["path"])),
    shell:
        RUN_STAGE


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
        **options("astrometry"),
    shell:
        RUN_STAGE


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
        **options("photometry"),
    shell:
        RUN_STAGE


rule uncatalogued:
    input:
        previous=rules.photometry.output.state,
        inspect=rules.inspect.output.state,
        detect=rules.detect.output.state,
        astrometry=rules.astrometry.output.state,
        photometry=rules.photometry.output.state,
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
        **options("uncatalogued"),
    shell:
        RUN_STAGE
